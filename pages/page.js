"use strict";
(() => {
  const graph = () => drawGraph($("graph"), $("rounds")?.checked === false ? folded(data.graph) : data.graph, (n) => "#" + (n.kind === "pause" ? "stages" : "of-" + (n.first || n.id)));

  const plans = data.plans, order = data.order;
  const sources = [...new Set(plans.flatMap((p) => p.sources))];
  let equal = plans.some((p) => uneven(p.stages));
  let chart, bars, at = -1, plan = plans[0], seen = 0;
  const end = (others = []) => Math.max(...[plan, ...others].map((p) => p.stages.at(-1).to));
  const planColor = (p) => (p === plans[0] ? css("--accent") : color(plans.indexOf(p)));
  const place = (p, token, n) => (equal ? order.indexOf(p.stages[n].name) + (token - p.stages[n].from) / (p.stages[n].to - p.stages[n].from) : token);
  const edges = (s) => (equal ? [order.indexOf(s.name), order.indexOf(s.name) + 1] : [s.from, s.to]);
  const back = (x) => {
    if (!equal) return rounded(Math.round(x), digits(end(), seen));
    const n = Math.min(Math.max(Math.floor(x), 0), order.length - 1), s = plan.stages.find((s) => s.name === order[n]);
    return s ? rounded(Math.round(s.from + (x - n) * (s.to - s.from)), digits(end(), s.to - s.from)) : "";
  };
  // Batches of preferences have pairs, and their rows are at most as long as the sequence length.
  const batchName = (stages) => {
    const kinds = [...new Set(stages.map((s) => s.rows))].sort().reverse().join(" or ");
    return kinds[0].toUpperCase() + kinds.slice(1) + " a step";
  };
  const bounded = (s, text) => s.at_most + text;
  const KNOBS = [
    { name: "Learning rate", of: 3, show: rate }, { name: "Tokens a step", of: 5, show: short },
    { name: batchName(plans.flatMap((p) => p.stages)), of: 4, show: short }, { name: "Sequence length", of: 6, show: short, powers: true },
    { name: "RoPE base", of: 7, show: short },
  ];
  // What never changes is a line of text, with the exact number, and no chart.
  const constant = (g) => plans.every((p) => p.rows.every((r) => r[g.of] === plans[0].rows[0][g.of]));
  const LINES = KNOBS.filter((g) => !constant(g));
  const GRIDS = [...LINES, { name: "Data mixture", show: (v) => Math.round(v * 100) + "%", tall: true }], MIXTURE = LINES.length;
  const same = KNOBS.filter(constant).map((g) => g.name + " " + plans[0].rows[0][g.of].toLocaleString("en", { maximumSignificantDigits: 15 }));
  if ($("constant")) $("constant").textContent = same.length ? "The same throughout: " + same.join(", ") + "." : "";
  const facts = (r) => [
    ...(plans.length > 1 ? [["Plan", plan.name]] : []),
    ["Stage", plan.stages[r[1]].name + ", step " + r[2].toLocaleString("en")], ["Tokens of all", bounded(plan.stages.slice(0, r[1] + 1).find((s) => s.at_most) || plan.stages[0], short(r[0]))],
    ["Tokens of the stage", bounded(plan.stages[r[1]], short(r[0] - plan.stages[r[1]].from))],
    ...KNOBS.map((g) => [g.of === 4 ? batchName([plan.stages[r[1]]]) : g.name, (g.of >= 5 && g.of <= 6 ? plan.stages[r[1]].at_most : "") + g.show(r[g.of])]),
    ...plan.sources.map((s, i) => [s, +(100 * r[8 + i]).toPrecision(4) + "%"]).filter((f, i) => r[8 + i]),
  ];
  function tooltip(found) {
    const box = document.createElement("div");
    box.className = "tip";
    const own = [found].flat().find((f) => f.seriesIndex < LINES.length + plan.sources.length);
    for (const [k, v] of own ? facts(plan.rows[own.dataIndex]) : []) {
      const line = document.createElement("div"), name = document.createElement("b");
      name.textContent = k + " ";
      line.append(name, v);
      box.append(line);
    }
    return box;
  }
  function bands(width, from, to) {
    return plan.stages.map((s, n) => {
      const [a, b] = edges(s), room = ((Math.min(b, to) - Math.max(a, from)) / (to - from)) * width;
      return [{ xAxis: a, name: s.name, itemStyle: { color: n % 2 ? "transparent" : css("--line"), opacity: 0.35 },
        label: { show: room > s.name.length * 7 + 6, position: "top", color: css("--ink"), fontSize: 12 } }, { xAxis: b }];
    });
  }
  function drawSchedules(range) {
    const box = $("schedules");
    if (!box) return;
    chart?.dispose();
    chart = echarts.init(box, null, { renderer: "svg" });
    const ink = css("--ink"), soft = css("--soft"), line = css("--line"), top = 40, gap = 38, left = 74;
    const others = $("overlay")?.checked ? plans.filter((p) => p !== plan) : [];
    const whole = equal ? order.length : end(others), [from, to] = range || [0, whole];
    seen = to - from;
    const names = plan.sources, right = Math.max(30, 3.7 * back(whole).length), width = box.clientWidth - left - right;
    const legendRows = Math.ceil(names.reduce((a, n) => a + n.length * 7 + 46, 0) / width);
    const around = top + gap * GRIDS.length + 44 + 24 * legendRows, h = Math.min((880 - around) / (GRIDS.length + 0.8), 120);
    box.style.height = around + h * (GRIDS.length + 0.8) + "px";
    chart.resize();
    let y = top;
    const powers = (g) => {
      const values = [plan, ...others].flatMap((p) => p.rows.map((r) => r[g.of])), low = 2 ** (Math.ceil(Math.log2(Math.min(...values))) - 1), high = 2 ** Math.ceil(Math.log2(Math.max(...values)));
      return { type: "log", logBase: 2, gridIndex: GRIDS.indexOf(g), min: low, max: high, interval: Math.ceil(Math.log2(high / low) / 5),
        axisLabel: { color: ink, formatter: g.show, hideOverlap: true }, splitLine: { lineStyle: { color: line } }, axisPointer: { show: false } };
    };
    const grid = GRIDS.map((g) => { const height = g.tall ? h * 1.8 : h, it = { left, right, top: y, height, outerBoundsMode: "none" }; y += height + gap; return it; });
    const axis = { type: "value", min: 0, max: whole, axisLine: { lineStyle: { color: line } }, splitLine: { show: false } };
    const points = (p, of) => p.rows.map((r) => [place(p, r[0], r[1]), r[of]]);
    chart.setOption({
      animation: false, textStyle: { color: ink }, aria: { enabled: true }, grid,
      title: GRIDS.map((g, i) => ({ text: g.name, left: left - 8, top: grid[i].top - 20 - (i ? 4 : 18), textStyle: { fontSize: 12.5, color: soft, fontWeight: 600 } })),
      legend: { data: names, top: y - 8, left, textStyle: { color: ink }, selectedMode: false, icon: "rect" },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      tooltip: { trigger: "axis", confine: true, formatter: tooltip, backgroundColor: css("--panel"), borderColor: line, textStyle: { color: ink }, transitionDuration: 0 },
      dataZoom: [
        { type: "inside", xAxisIndex: GRIDS.map((_, i) => i), filterMode: "none", startValue: from, endValue: to, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
        { type: "slider", xAxisIndex: GRIDS.map((_, i) => i), filterMode: "none", bottom: 8, height: 22, left, right, startValue: from, endValue: to, showDataShadow: false, labelFormatter: back, textStyle: { color: ink } },
      ],
      xAxis: GRIDS.map((g, i) => ({ ...axis, gridIndex: i, ...(equal ? { interval: 1 } : {}), axisTick: { show: i === MIXTURE },
        axisLabel: { show: i === MIXTURE, color: ink, hideOverlap: true, formatter: back }, axisPointer: { label: { show: false } } })),
      yAxis: GRIDS.map((g, i) => g.powers ? powers(g) : ({ type: "value", gridIndex: i, splitNumber: 3, ...(g.tall ? { max: 1, interval: 0.25 } : {}), scale: false,
        axisLabel: { color: ink, formatter: g.show, hideOverlap: true }, splitLine: { lineStyle: { color: line } }, axisPointer: { show: false } })),
      series: [
        ...LINES.map((g, i) => ({ name: g.name, type: "line", xAxisIndex: i, yAxisIndex: i, showSymbol: false, z: 3, lineStyle: { width: 2, color: planColor(plan) }, itemStyle: { color: planColor(plan) },
          data: points(plan, g.of), markArea: { silent: true, data: bands(width, from, to).map((b) => (i ? [{ ...b[0], name: "", label: { show: false } }, b[1]] : b)) } })),
        ...names.map((s, k) => ({ name: s, type: "line", xAxisIndex: MIXTURE, yAxisIndex: MIXTURE, stack: "all", showSymbol: false, lineStyle: { width: 0 }, areaStyle: { color: color(sources.indexOf(s)), opacity: 0.9 }, itemStyle: { color: color(sources.indexOf(s)), decal: pattern(sources.indexOf(s)) },
          data: points(plan, 8 + k),
          ...(k ? {} : { markLine: { silent: true, symbol: "none", label: { show: false }, lineStyle: { color: css("--bg"), width: 1.5, type: "solid" }, data: plan.stages.slice(1).map((s) => ({ xAxis: edges(s)[0] })) } }) })),
        ...others.flatMap((p) => LINES.map((g, i) => ({ name: p.name, type: "line", xAxisIndex: i, yAxisIndex: i, showSymbol: false, silent: true, z: 2,
          lineStyle: { width: 1.5, type: "dashed", color: planColor(p) }, itemStyle: { color: planColor(p) }, data: points(p, g.of) }))),
      ],
    });
    chart.on("datazoom", () => {
      const z = chart.getOption().dataZoom[0];
      seen = z.endValue - z.startValue;
      if (LINES.length) chart.setOption({ series: [{ name: LINES[0].name, markArea: { data: bands(width, z.startValue, z.endValue) } }] });
    });
  }
  function drawMemory() {
    const box = $("memory");
    if (!box) return;
    bars?.dispose();
    const list = data.memory, parts = Object.keys(list[0].parts), narrow = box.clientWidth < 640;
    box.style.height = list.length * 30 + (narrow ? 150 : 100) + "px";
    bars = echarts.init(box, null, { renderer: "svg" });
    const ink = css("--ink"), gib = 2 ** 30, left = Math.min(Math.max(...list.map((m) => m.name.length)) * 7.2 + 20, box.clientWidth * 0.4);
    const has = [...new Set(list.map((m) => m.has).filter(Boolean))];
    bars.setOption({
      animation: false, textStyle: { color: ink }, aria: { enabled: true }, grid: { left, right: 30, top: narrow ? 100 : 56, bottom: 44 },
      legend: { top: 0, left: 0, textStyle: { color: ink }, selectedMode: false },
      tooltip: { trigger: "axis", axisPointer: { type: "shadow" }, confine: true, valueFormatter: (v) => v.toFixed(2) + " GiB", backgroundColor: css("--panel"), borderColor: css("--line"), textStyle: { color: ink } },
      xAxis: { type: "value", name: "GiB", nameLocation: "middle", nameGap: 28, max: (v) => Math.max(v.max, ...has.map((b) => b / gib)) * 1.06 | 0, axisLabel: { color: ink, showMaxLabel: false }, splitLine: { lineStyle: { color: css("--line") } } },
      yAxis: { type: "category", inverse: true, data: list.map((m) => m.name), axisLabel: { color: ink, width: left - 12, overflow: "truncate" } },
      series: parts.map((p, k) => ({ name: p, type: "bar", stack: "all", barMaxWidth: 20, itemStyle: { color: color(k) }, data: list.map((m) => m.parts[p] / gib),
        ...(k ? {} : { markLine: { silent: true, symbol: "none", label: { formatter: (v) => v.value + " GiB", color: ink, position: "start" }, lineStyle: { color: css("--bad"), width: 2, type: "dashed" }, data: has.map((b) => ({ xAxis: +(b / gib).toFixed(1) })) } }) })),
    });
  }
  function drawLegend() {
    const box = $("legend");
    if (!box) return;
    box.replaceChildren(...plans.filter((p) => p === plan || $("overlay").checked).map((p) => {
      const of = document.createElement("span"), line = document.createElement("i");
      line.style.borderTop = `3px ${p === plan ? "solid" : "dashed"} ${planColor(p)}`;
      of.append(line, p.name);
      return of;
    }));
  }
  function select() {
    const s = plan.stages.find((s) => s.name === $("stage").value);
    drawSchedules(s && edges(s));
    drawLegend();
    at = -1;
  }
  function draw() {
    graph();
    if ($("schedules")) select();
    drawMemory();
  }
  if ($("rounds")) {
    $("rounds").checked = data.graph.nodes.length <= 14;
    $("rounds").onchange = graph;
  }
  if ($("schedules")) {
    $("equal").checked = equal;
    $("equal").onchange = () => { equal = $("equal").checked; select(); };
    $("stage").onchange = select;
    if ($("plan")) {
      $("plan").onchange = () => { plan = plans[+$("plan").value]; select(); };
      $("overlay").onchange = select;
    }
    $("schedules").onkeydown = (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const z = chart.getOption().dataZoom[0], span = z.end - z.start;
      if (move) at = Math.min(Math.max(at + move, 0), plan.rows.length - 1);
      else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = plan.rows.length - 1;
      else if (event.key === "+" || event.key === "=") chart.dispatchAction({ type: "dataZoom", start: z.start + span / 4, end: z.end - span / 4 });
      else if (event.key === "-") chart.dispatchAction({ type: "dataZoom", start: Math.max(0, z.start - span / 2), end: Math.min(100, z.end + span / 2) });
      else if (event.key === "0") { $("stage").value = ""; select(); }
      else return;
      event.preventDefault();
      if (at >= 0) {
        chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at });
        $("said").textContent = facts(plan.rows[at]).map((f) => f.join(" ")).join("; ");
      }
    };
  }

  const values = [...$("provenance").tBodies[0].rows];
  function filter() {
    const kind = $("kind").value, word = $("word").value.trim().toLowerCase();
    for (const row of values) row.hidden = !((!kind || row.dataset.kind === kind) && row.textContent.toLowerCase().includes(word));
    const left = values.filter((row) => !row.hidden).length;
    $("found").textContent = left === values.length ? "" : `${left} of ${values.length}`;
  }
  $("kind").onchange = $("word").oninput = filter;
  // A stage of the graph leads to its values, whatever is filtered.
  addEventListener("hashchange", () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row?.hidden) return;
    $("kind").value = $("word").value = "";
    filter();
    row.scrollIntoView();
  });
  drawn(draw);
})();
