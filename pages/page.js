"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const night = matchMedia("(prefers-color-scheme: dark)");
  const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#b5a800", "#7f7f7f", "#a6761d"];
  const color = (n) => PALETTE[n % PALETTE.length];
  const short = (v) => {
    if (v >= 1024) for (const [s, n] of [["Gi", 2 ** 30], ["Mi", 2 ** 20], ["Ki", 1024]])
      if (v % n === 0 && v / n < 1024) return v / n + s;
    for (const [s, n] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]])
      if (Math.abs(v) >= n) return +(v / n).toPrecision(4) + s;
    return String(+(+v).toPrecision(4));
  };
  const rate = (v) => (v === 0 ? "0" : v < 0.001 ? v.toExponential(2).replace(/\.?0+e/, "e") : String(+v.toPrecision(4)));

  function drawGraph() {
    const box = $("graph"), g = new dagre.graphlib.Graph({ compound: true });
    const shape = { nodesep: 16, ranksep: 34, marginx: 12, marginy: 12 };
    g.setDefaultEdgeLabel(() => ({}));
    for (const n of data.graph.nodes) {
      const width = Math.max(...n.lines.map((l, i) => l.length * (i ? 7 : 8.2))) + 22;
      g.setNode(n.id, { ...n, width, height: 14 + 16 * n.lines.length });
      if (n.group) {
        if (!g.hasNode("group " + n.group)) g.setNode("group " + n.group, { label: n.group });
        g.setParent(n.id, "group " + n.group);
      }
    }
    for (const e of data.graph.edges) g.setEdge(e.from, e.to, { roles: e.roles, weight: e.roles.includes("model") ? 4 : 1 });
    const lay = (rankdir) => {
      g.setGraph({ ...shape, rankdir });
      dagre.layout(g);
      return g.graph().width <= box.clientWidth;
    };
    if (!lay("LR") && !lay("TB") && box.clientWidth >= 640) lay("LR");
    const make = (name, at, into, text) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [k, v] of Object.entries(at)) node.setAttribute(k, v);
      if (text !== undefined) node.textContent = text;
      into.append(node);
      return node;
    };
    box.replaceChildren();
    const { width, height } = g.graph();
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, box);
    const defs = make("defs", {}, svg);
    const tip = make("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, defs);
    make("path", { d: "M0 0L8 4L0 8z" }, tip);
    for (const id of g.nodes().filter((n) => n.startsWith("group "))) {
      const n = g.node(id);
      make("rect", { class: "group", x: n.x - n.width / 2, y: n.y - n.height / 2, width: n.width, height: n.height, rx: 10 }, svg);
      make("text", { x: n.x - n.width / 2 + 8, y: n.y - n.height / 2 + 14 }, svg, n.label);
    }
    for (const e of g.edges()) {
      const { points: p, roles } = g.edge(e);
      let d = `M${p[0].x} ${p[0].y}`;
      for (let i = 1; i < p.length - 1; i++) d += `Q${p[i].x} ${p[i].y} ${(p[i].x + p[i + 1].x) / 2} ${(p[i].y + p[i + 1].y) / 2}`;
      d += `L${p.at(-1).x} ${p.at(-1).y}`;
      const line = make("path", { d, "marker-end": "url(#tip)", class: roles.some((r) => r === "model" || r === "of") ? "" : "other" }, svg);
      make("title", {}, line, `${e.v} → ${e.w}: ${roles.join(", ")}`);
    }
    for (const n of data.graph.nodes) {
      const at = g.node(n.id), link = make("a", { href: "#" + (n.kind === "pause" ? "stages" : "of-" + n.id), class: n.kind }, svg);
      make("title", {}, link, n.id);
      make("rect", { x: at.x - at.width / 2, y: at.y - at.height / 2, width: at.width, height: at.height, rx: 7 }, link);
      n.lines.forEach((l, i) => make("text", { x: at.x, y: at.y - at.height / 2 + 19 + 16 * i, "text-anchor": "middle", class: i ? "" : "name" }, link, (i ? " " : "") + l));
    }
  }

  const stages = data.stages, rows = data.rows, total = stages.length ? stages.at(-1).to : 0;
  let equal = stages.length > 1 && Math.min(...stages.map((s) => s.to - s.from)) < total / 50;
  let chart, bars, at = -1;
  const place = (token, n) => (equal ? n + (token - stages[n].from) / (stages[n].to - stages[n].from) : token);
  const edges = (n) => (equal ? [n, n + 1] : [stages[n].from, stages[n].to]);
  const back = (x) => {
    if (!equal) return x;
    const n = Math.min(Math.max(Math.floor(x), 0), stages.length - 1);
    return stages[n].from + (x - n) * (stages[n].to - stages[n].from);
  };
  const GRIDS = [
    { name: "Learning rate", of: 3, show: rate }, { name: "Tokens a step", of: 5, show: short },
    { name: "Sequences a step", of: 4, show: short }, { name: "Sequence length", of: 6, show: short, powers: true },
    { name: "RoPE base", of: 7, show: short }, { name: "Data mixture", show: (v) => Math.round(v * 100) + "%", tall: true },
  ];
  const facts = (r) => [
    ["Stage", stages[r[1]].name + ", step " + r[2].toLocaleString("en")], ["Tokens of all", short(r[0])],
    ["Tokens of the stage", short(r[0] - stages[r[1]].from)],
    ...GRIDS.slice(0, 5).map((g) => [g.name, g.show(r[g.of])]),
    ...data.sources.map((s, i) => [s, +(100 * r[8 + i]).toPrecision(4) + "%"]).filter((f, i) => r[8 + i]),
  ];
  function tooltip(found) {
    const box = document.createElement("div");
    box.className = "tip";
    const list = found instanceof Array ? found : [found];
    for (const [k, v] of facts(rows[list[0].dataIndex])) {
      const line = document.createElement("div"), name = document.createElement("b");
      name.textContent = k + " ";
      line.append(name, v);
      box.append(line);
    }
    return box;
  }
  function bands(width, from, to) {
    return stages.map((s, n) => {
      const [a, b] = edges(n), room = ((Math.min(b, to) - Math.max(a, from)) / (to - from)) * width;
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
    const end = equal ? stages.length : total, [from, to] = range || [0, end];
    const names = data.sources, width = box.clientWidth - left - 30;
    const legendRows = Math.ceil(names.reduce((a, n) => a + n.length * 7 + 46, 0) / width);
    const h = (880 - top - gap * 6 - 44 - 24 * legendRows) / 6.8;
    let y = top;
    const powers = (g) => {
      const values = rows.map((r) => r[g.of]), low = 2 ** (Math.ceil(Math.log2(Math.min(...values))) - 1), high = 2 ** Math.ceil(Math.log2(Math.max(...values)));
      return { type: "log", logBase: 2, gridIndex: GRIDS.indexOf(g), min: low, max: high, interval: Math.ceil(Math.log2(high / low) / 5),
        axisLabel: { color: ink, formatter: g.show, hideOverlap: true }, splitLine: { lineStyle: { color: line } }, axisPointer: { show: false } };
    };
    const grid = GRIDS.map((g) => { const height = g.tall ? h * 1.8 : h, it = { left, right: 30, top: y, height, outerBoundsMode: "none" }; y += height + gap; return it; });
    const axis = { type: "value", min: 0, max: end, axisLine: { lineStyle: { color: line } }, splitLine: { show: false } };
    const xs = rows.map((r) => place(r[0], r[1]));
    chart.setOption({
      animation: false, textStyle: { color: ink }, aria: { enabled: true }, grid,
      title: GRIDS.map((g, i) => ({ text: g.name, left: left - 8, top: grid[i].top - 20 - (i ? 4 : 18), textStyle: { fontSize: 12.5, color: soft, fontWeight: 600 } })),
      legend: { data: names, top: y - 8, left, textStyle: { color: ink }, selectedMode: false, icon: "rect" },
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      tooltip: { trigger: "axis", confine: true, formatter: tooltip, backgroundColor: css("--panel"), borderColor: line, textStyle: { color: ink }, transitionDuration: 0 },
      dataZoom: [
        { type: "inside", xAxisIndex: GRIDS.map((_, i) => i), filterMode: "none", startValue: from, endValue: to, zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false },
        { type: "slider", xAxisIndex: GRIDS.map((_, i) => i), filterMode: "none", bottom: 8, height: 22, left, right: 30, startValue: from, endValue: to, showDataShadow: false, labelFormatter: (v) => short(Math.round(back(v))), textStyle: { color: ink } },
      ],
      xAxis: GRIDS.map((g, i) => ({ ...axis, gridIndex: i, ...(equal ? { interval: 1 } : {}), axisTick: { show: i === 5 },
        axisLabel: { show: i === 5, color: ink, hideOverlap: true, formatter: (v) => short(Math.round(back(v))) }, axisPointer: { label: { show: false } } })),
      yAxis: GRIDS.map((g, i) => g.powers ? powers(g) : ({ type: "value", gridIndex: i, splitNumber: 3, ...(g.tall ? { max: 1, interval: 0.25 } : {}), scale: false,
        axisLabel: { color: ink, formatter: g.show, hideOverlap: true }, splitLine: { lineStyle: { color: line } }, axisPointer: { show: false } })),
      series: [
        ...GRIDS.slice(0, 5).map((g, i) => ({ name: g.name, type: "line", xAxisIndex: i, yAxisIndex: i, showSymbol: false, lineStyle: { width: 2, color: css("--accent") }, itemStyle: { color: css("--accent") },
          data: rows.map((r, n) => [xs[n], r[g.of]]), markArea: { silent: true, data: bands(width, from, to).map((b) => (i ? [{ ...b[0], name: "", label: { show: false } }, b[1]] : b)) } })),
        ...names.map((s, k) => ({ name: s, type: "line", xAxisIndex: 5, yAxisIndex: 5, stack: "all", showSymbol: false, lineStyle: { width: 0 }, areaStyle: { color: color(k), opacity: 0.9 }, itemStyle: { color: color(k) },
          data: rows.map((r, n) => [xs[n], r[8 + k]]),
          ...(k ? {} : { markLine: { silent: true, symbol: "none", label: { show: false }, lineStyle: { color: css("--bg"), width: 1.5, type: "solid" }, data: stages.slice(1).map((_, n) => ({ xAxis: edges(n + 1)[0] })) } }) })),
      ],
    });
    chart.on("datazoom", () => {
      const z = chart.getOption().dataZoom[0];
      chart.setOption({ series: [{ name: GRIDS[0].name, markArea: { data: bands(width, z.startValue, z.endValue) } }] });
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
  function select() {
    const n = $("stage").value;
    drawSchedules(n === "" ? undefined : edges(+n));
    at = -1;
  }
  function draw() {
    drawGraph();
    if ($("schedules")) select();
    drawMemory();
  }
  const theme = (dark) => { root.dataset.theme = dark ? "dark" : "light"; };
  theme(night.matches);
  night.addEventListener("change", () => { theme(night.matches); draw(); });
  $("theme").onclick = () => { theme(root.dataset.theme !== "dark"); draw(); };
  if ($("schedules")) {
    $("equal").checked = equal;
    $("equal").onchange = () => { equal = $("equal").checked; select(); };
    $("stage").onchange = select;
    $("schedules").onkeydown = (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const z = chart.getOption().dataZoom[0], span = z.end - z.start;
      if (move) at = Math.min(Math.max(at + move, 0), rows.length - 1);
      else if (event.key === "Home") at = 0;
      else if (event.key === "End") at = rows.length - 1;
      else if (event.key === "+" || event.key === "=") chart.dispatchAction({ type: "dataZoom", start: z.start + span / 4, end: z.end - span / 4 });
      else if (event.key === "-") chart.dispatchAction({ type: "dataZoom", start: Math.max(0, z.start - span / 2), end: Math.min(100, z.end + span / 2) });
      else if (event.key === "0") { $("stage").value = ""; select(); }
      else return;
      event.preventDefault();
      if (at >= 0) {
        chart.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: at });
        $("said").textContent = facts(rows[at]).map((f) => f.join(" ")).join("; ");
      }
    };
  }
  draw();
  let wait;
  let wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; clearTimeout(wait); wait = setTimeout(draw, 150); } });
})();
