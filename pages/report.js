"use strict";
(() => {
  const runs = data.runs, box = $("curves");
  const names = Object.keys(data.titles).filter((name) => runs.some((r) => r.names.includes(name)));
  const SHOW = { lr: rate, mfu: (v) => +(100 * v).toPrecision(3) + "%", tokens_per_second: short };
  const show = (name) => SHOW[name] || ((v) => String(+(+v).toPrecision(4)));
  const ends = runs.map((r) => (r.stages.length ? r.stages.at(-1).to : 0)), end = Math.max(...ends);
  const tone = { gate: "--key", evaluation: "--good", restart: "--bad", spike: "--bad", rollback: "--bad" };
  const stroke = { restart: "dotted", spike: "solid", rollback: "solid" };
  const ink = (n) => (n ? color(n) : css("--accent"));
  const SHAPES = ["circle", "diamond", "triangle", "rect"], SIGNS = ["○", "◇", "△", "□"];
  const LEFT = 74, TOP = 40, GAP = 40, HEIGHT = 132;
  let chart, at = -1, now = runs[0], seen = end;
  // Lines end with their stages, whose losses are of different kinds: null is the gap before a stage.
  const spaced = runs.map((r) => r.rows.flatMap((row, i) => (i && row[1] !== r.rows[i - 1][1] ? [null, row] : [row])));
  const alone = (n, i) => !spaced[n][i - 1] && !spaced[n][i + 1];
  const tokens = (v) => rounded(Math.round(v), digits(end, seen));

  const facts = (r, row) => [
    ...(runs.length > 1 ? [["Run", r.name]] : []),
    ["Stage", `${r.stages[row[1]].name}, step ${row[2].toLocaleString("en")}`], ["Tokens", short(row[0])],
    ...r.names.map((name, i) => [data.titles[name], row[3 + i] === null ? null : show(name)(row[3 + i])]).filter((f) => f[1] !== null),
    ...Object.entries(r.held_out).flatMap(([name, of]) => of.filter((p) => p[0] === row[0]).map((p) => [`Held out, ${name}`, show("loss")(p[1])])),
    ...r.marks.filter((m) => m.at === row[0]).map((m) => ["Here", m.text]),
  ];
  function tooltip(found) {
    const tip = document.createElement("div"), seen = new Set();
    tip.className = "tip";
    for (const each of [found].flat()) {
      const n = Math.floor(each.seriesIndex / names.length), r = runs[n];
      if (!r || seen.has(n) || !spaced[n][each.dataIndex]) continue;
      seen.add(n);
      for (const [k, v] of facts(r, spaced[n][each.dataIndex])) {
        const line = document.createElement("div"), name = document.createElement("b");
        name.textContent = k + " ";
        line.append(name, v);
        tip.append(line);
      }
    }
    return tip;
  }
  function bands(from, to) {
    const width = box.clientWidth - LEFT - 30;
    return now.stages.map((s, n) => {
      const room = ((Math.min(s.to, to) - Math.max(s.from, from)) / (to - from || 1)) * width;
      return [{ xAxis: s.from, name: s.name, itemStyle: { color: n % 2 ? "transparent" : css("--line"), opacity: 0.35 },
        label: { show: room > s.name.length * 7 + 6, position: "top", color: css("--ink"), fontSize: 12 } }, { xAxis: s.to }];
    });
  }
  const plain = (areas) => areas.map((b) => [{ ...b[0], name: "", label: { show: false } }, b[1]]);
  function draw(range) {
    chart?.dispose();
    box.style.height = TOP + names.length * (HEIGHT + GAP) + 50 + "px";
    chart = echarts.init(box, null, { renderer: "svg" });
    const text = css("--ink"), soft = css("--soft"), line = css("--line"), [from, to] = range || [0, end], all = names.map((_, i) => i);
    seen = to - from;
    const log = $("log").checked;
    const marks = { silent: true, symbol: "none", label: { show: false },
      data: now.marks.map((m) => ({ xAxis: m.at, lineStyle: { color: css(tone[m.kind]), type: stroke[m.kind] || "dashed", width: 1.5 } })) };
    chart.setOption({
      animation: false, textStyle: { color: text }, aria: { enabled: true },
      grid: all.map((i) => ({ left: LEFT, right: 30, top: TOP + i * (HEIGHT + GAP), height: HEIGHT, outerBoundsMode: "none" })),
      title: names.map((name, i) => ({ text: data.titles[name], left: LEFT - 8, top: TOP + i * (HEIGHT + GAP) - (i ? 24 : 38), textStyle: { fontSize: 12.5, color: soft, fontWeight: 600 } })),
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      tooltip: { trigger: "axis", confine: true, formatter: tooltip, backgroundColor: css("--panel"), borderColor: line, textStyle: { color: text }, transitionDuration: 0 },
      dataZoom: [
        { type: "inside", xAxisIndex: all, filterMode: "none", startValue: from, endValue: to, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
        { type: "slider", xAxisIndex: all, filterMode: "none", bottom: 8, height: 22, left: LEFT, right: 30, startValue: from, endValue: to, showDataShadow: false, labelFormatter: tokens, textStyle: { color: text } },
      ],
      xAxis: all.map((i) => ({ type: "value", gridIndex: i, min: 0, max: end, axisLine: { lineStyle: { color: line } }, splitLine: { show: false }, axisTick: { show: i === names.length - 1 },
        axisLabel: { show: i === names.length - 1, color: text, hideOverlap: true, showMaxLabel: false, formatter: tokens }, axisPointer: { label: { show: false } } })),
      yAxis: names.map((name, i) => ({ type: name === "loss" && log ? "log" : "value", gridIndex: i, splitNumber: 3, scale: name === "loss",
        axisLabel: { color: text, formatter: show(name), hideOverlap: true }, splitLine: { lineStyle: { color: line } }, axisPointer: { show: false } })),
      series: [...runs.flatMap((r, n) => names.map((name, i) => {
        const of = r.names.indexOf(name), areas = bands(from, to);
        return { name: `${r.name} ${data.titles[name]}`, type: "line", xAxisIndex: i, yAxisIndex: i, showSymbol: true, showAllSymbol: true, z: r === now ? 3 : 2,
          lineStyle: { width: r === now ? 1.6 : 1.2, color: ink(n) }, itemStyle: { color: ink(n) },
          data: of < 0 ? [] : spaced[n].map((row, i) => ({ value: row ? [row[0], row[3 + of]] : ["-", "-"], symbol: "circle", symbolSize: row && alone(n, i) ? 4 : 0 })),
          ...(r === now ? { markArea: { silent: true, data: i ? plain(areas) : areas }, markLine: marks } : {}) };
      })), ...(names.includes("loss") ? Object.entries(now.held_out).map(([name, of], n) => ({ name: `held out, ${name}`, type: "scatter", silent: true, z: 4,
        xAxisIndex: names.indexOf("loss"), yAxisIndex: names.indexOf("loss"), symbol: SHAPES[n % SHAPES.length], symbolSize: 8,
        itemStyle: { color: css("--panel"), borderColor: css("--good"), borderWidth: 1.6 }, data: of })) : [])],
    });
    chart.on("datazoom", () => {
      const z = chart.getOption().dataZoom[0];
      seen = z.endValue - z.startValue;
      chart.setOption({ series: [{ name: `${now.name} ${data.titles[names[0]]}`, markArea: { data: bands(z.startValue, z.endValue) } }] });
    });
    const named = (text, style) => {
      const of = document.createElement("span"), line = document.createElement("i");
      line.style.borderTop = style;
      of.append(...(style ? [line] : []), text);
      return of;
    };
    $("legend").replaceChildren(
      ...(runs.length > 1 ? runs.map((r, n) => named(r.name, `3px solid ${ink(n)}`)) : []),
      ...Object.keys(now.held_out).map((name, n) => named(`${SIGNS[n % SIGNS.length]} held out, ${name}`)),
      ...[...new Set(now.marks.map((m) => m.kind))].map((kind) => named(kind, `3px ${stroke[kind] || "dashed"} ${css(tone[kind])}`)));
  }
  function select() {
    const s = now.stages.find((s) => s.name === $("stage").value);
    draw(s && [s.from, s.to]);
    at = -1;
  }
  function stages() {
    const wanted = $("stage").value;
    $("stage").replaceChildren(new Option("all stages", ""), ...now.stages.map((s) => new Option(s.name, s.name)));
    $("stage").value = now.stages.some((s) => s.name === wanted) ? wanted : "";
  }
  function keys(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 50, PageUp: -50 }[event.key];
    const z = chart.getOption().dataZoom[0], span = z.end - z.start, last = now.rows.length - 1;
    if (move) at = Math.min(Math.max(at + move, 0), last);
    else if (event.key === "Home") at = 0;
    else if (event.key === "End") at = last;
    else if (event.key === "+" || event.key === "=") chart.dispatchAction({ type: "dataZoom", start: z.start + span / 4, end: z.end - span / 4 });
    else if (event.key === "-") chart.dispatchAction({ type: "dataZoom", start: Math.max(0, z.start - span / 2), end: Math.min(100, z.end + span / 2) });
    else if (event.key === "0") { $("stage").value = ""; select(); }
    else return;
    event.preventDefault();
    if (at < 0 || !now.rows.length) return;
    const n = runs.indexOf(now);
    chart.dispatchAction({ type: "showTip", seriesIndex: n * names.length, dataIndex: spaced[n].indexOf(now.rows[at]) });
    $("said").textContent = facts(now, now.rows[at]).map((f) => f.join(" ")).join("; ");
  }
  if (box) {
    stages();
    $("stage").onchange = $("log").onchange = select;
    if ($("run")) $("run").onchange = () => { now = runs[+$("run").value]; stages(); select(); };
    box.onkeydown = keys;
  }

  // A stage of a graph leads to its jobs, which open.
  function graphs() {
    runs.forEach((r, n) => {
      const whole = $(`rounds-${n}`).checked;
      drawGraph($(`graph-${n}`), whole ? r.graph : folded(r.graph), (node) => `#${node.kind === "pause" ? `stages-${n}` : `of-${n}-${node.first || node.id}`}`);
    });
  }
  runs.forEach((r, n) => {
    const tick = $(`rounds-${n}`);
    tick.checked = !r.graph.folded;
    tick.onchange = graphs;
    tick.closest(".tools").hidden = !r.graph.nodes.some((node) => node.group);
  });
  function open() {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1))), hides = row?.closest("details");
    if (hides && !hides.open) { hides.open = true; row.scrollIntoView(); }
  }
  addEventListener("hashchange", open);

  for (const tools of document.querySelectorAll("[data-filter]")) {
    const rows = [...$(`samples-${tools.dataset.filter}`).tBodies[0].rows];
    const [job, word, least] = tools.querySelectorAll("select, input"), said = tools.querySelector("span");
    tools.oninput = () => {
      const text = word.value.trim().toLowerCase(), floor = least.value === "" ? null : +least.value;
      for (const row of rows) {
        const high = floor === null || (row.dataset.reward !== "" && +row.dataset.reward >= floor);
        row.hidden = !(high && (!job.value || row.dataset.job === job.value) && row.textContent.toLowerCase().includes(text));
      }
      const left = rows.filter((row) => !row.hidden).length;
      said.textContent = left === rows.length ? "" : `${left} of ${rows.length}`;
    };
  }
  drawn(() => { graphs(); if (box) select(); });
  open();
})();
