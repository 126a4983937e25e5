"use strict";
// What the scripts of all pages share: data, colours, numbers for people, the theme.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#b5a800", "#7f7f7f", "#a6761d"];
const color = (n) => PALETTE[n % PALETTE.length];
// What tells the colours of a chart with more than the palette's apart: the second ten are striped, the third dotted, and so on.
const PATTERNS = [null, { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 5], rotation: -Math.PI / 4 }, { symbol: "circle", dashArrayX: [[7, 7], [0, 7, 7, 0]], dashArrayY: [7, 0], symbolSize: 0.6 },
  { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 5], rotation: Math.PI / 4 }, { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 5] }];
const pattern = (n) => {
  const of = PATTERNS[Math.floor(n / PALETTE.length) % PATTERNS.length];
  return of && { color: "rgba(255,255,255,0.75)", ...of };
};
const rounded = (v, digits) => {
  if (v >= 1024) for (const [s, n] of [["Gi", 2 ** 30], ["Mi", 2 ** 20], ["Ki", 1024]])
    if (v % n === 0 && v / n < 1024) return v / n + s;
  for (const [s, n] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]])
    if (Math.abs(v) >= n) return +(v / n).toPrecision(digits) + s;
  return String(+(+v).toPrecision(digits));
};
const short = (v) => rounded(v, 4);
// The digits that keep numbers up to `most` apart on an axis that shows `span` of them.
const digits = (most, span) => Math.min(Math.max(4, Math.ceil(Math.log10(Math.max(most, 1) / Math.max(span, 1))) + 3), 12);
const rate = (v) => (v === 0 ? "0" : v < 0.001 ? v.toExponential(2).replace(/\.?0+e/, "e") : String(+v.toPrecision(4)));

// Whether some stage would be too narrow to see on an axis of tokens.
const uneven = (stages) => stages.length > 1 && Math.min(...stages.map((s) => s.to - s.from)) < stages.at(-1).to / 50;

// Draws now, in the other scheme, in another width, and for paper: light, and as wide as a page.
function drawn(draw) {
  const night = matchMedia("(prefers-color-scheme: dark)");
  const theme = (dark) => { root.dataset.theme = dark ? "dark" : "light"; };
  theme(night.matches);
  night.addEventListener("change", () => { theme(night.matches); draw(); });
  $("theme").onclick = () => { theme(root.dataset.theme !== "dark"); draw(); };
  addEventListener("beforeprint", () => { theme(false); root.classList.add("paper"); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("paper"); theme(night.matches); draw(); });
  draw();
  let wait, wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; clearTimeout(wait); wait = setTimeout(draw, 150); } });
}
