"use strict";
// The graph of a plan's stages, as all pages draw it.
const SMALLEST = 0.6; // of its size; smaller text cannot be read, and the box scrolls

// The graph with one node in place of each round.
function folded({ nodes, edges }) {
  const rounds = new Map(), of = new Map(), found = [], links = new Map();
  for (const n of nodes) {
    of.set(n.id, n.group || n.id);
    if (!n.group) found.push(n);
    else if (rounds.has(n.group)) rounds.get(n.group).push(n);
    else { rounds.set(n.group, [n]); found.push({ id: n.group, first: n.id, kind: "round", group: "" }); }
  }
  for (const n of found.filter((f) => f.kind === "round")) {
    const inner = rounds.get(n.id), tokens = inner.reduce((sum, i) => sum + i.tokens, 0);
    n.lines = [n.id, `${inner.length} stages`, `${inner.find((i) => i.at_most)?.at_most || ""}${short(+tokens.toPrecision(4))} tokens`];
    // Where the page tells what has become of stages.
    const states = [...new Set(inner.map((i) => i.state).filter(Boolean))];
    if (states.length) n.lines.push((n.state = states.length > 1 ? "started" : states[0]));
  }
  for (const e of edges) {
    const from = of.get(e.from), to = of.get(e.to), id = from + " " + to;
    if (from !== to) links.set(id, { from, to, roles: [...new Set([...(links.get(id)?.roles || []), ...e.roles])] });
  }
  return { nodes: found, edges: [...links.values()] };
}

// Draws a graph into a box, no wider than it; `lead` says where a node links to.
function drawGraph(box, { nodes, edges }, lead) {
  const g = new dagre.graphlib.Graph({ compound: true });
  const shape = { nodesep: 16, ranksep: 34, marginx: 12, marginy: 12 };
  g.setDefaultEdgeLabel(() => ({}));
  for (const n of nodes) {
    const width = Math.max(...n.lines.map((l, i) => l.length * (i ? 7 : 8.2))) + 22;
    g.setNode(n.id, { ...n, width, height: 14 + 16 * n.lines.length });
    if (n.group) {
      if (!g.hasNode("group " + n.group)) g.setNode("group " + n.group, { label: n.group });
      g.setParent(n.id, "group " + n.group);
    }
  }
  for (const e of edges) g.setEdge(e.from, e.to, { roles: e.roles, weight: e.roles.includes("model") ? 4 : 1 });
  const lay = (rankdir) => {
    g.setGraph({ ...shape, rankdir });
    dagre.layout(g);
    return g.graph().width;
  };
  // From left to right if that fits, else from top to bottom, else what has to shrink less.
  const room = box.clientWidth, wide = lay("LR");
  if (wide > room && lay("TB") > Math.max(room, wide)) lay("LR");
  const make = (name, at, into, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(at)) node.setAttribute(k, v);
    if (text !== undefined) node.textContent = text;
    into.append(node);
    return node;
  };
  box.replaceChildren();
  // dagre's size is that of the nodes; edges may bend out of it.
  const bends = g.edges().flatMap((e) => g.edge(e).points), over = (of) => Math.min(0, ...bends.map((p) => p[of] - 8));
  const left = over("x"), top = over("y");
  const width = Math.max(g.graph().width, ...bends.map((p) => p.x + 8)) - left, height = Math.max(g.graph().height, ...bends.map((p) => p.y + 8)) - top;
  const scale = Math.max(Math.min(1, room / width), SMALLEST);
  const svg = make("svg", { width: width * scale, height: height * scale, viewBox: `${left} ${top} ${width} ${height}` }, box);
  const defs = make("defs", {}, svg);
  const tip = make("marker", { id: "tip-" + box.id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, defs);
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
    const line = make("path", { d, "marker-end": `url(#tip-${box.id})`, class: roles.some((r) => r === "model" || r === "of") ? "" : "other" }, svg);
    make("title", {}, line, `${e.v} → ${e.w}: ${roles.join(", ")}`);
  }
  for (const n of nodes) {
    const at = g.node(n.id), link = make("a", { href: lead(n), class: `${n.kind} ${n.state || ""}` }, svg);
    make("title", {}, link, n.id);
    make("rect", { x: at.x - at.width / 2, y: at.y - at.height / 2, width: at.width, height: at.height, rx: 7 }, link);
    n.lines.forEach((l, i) => make("text", { x: at.x, y: at.y - at.height / 2 + 19 + 16 * i, "text-anchor": "middle", class: i ? "" : "name" }, link, (i ? " " : "") + l));
  }
}
