"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  const pictures = cards.map((card, n) => ({ box: card.querySelector(".picture"), ...data.pictures[n] }));
  const HEIGHTS = [46, 30, 38], GAP = 8;

  function draw() {
    for (const picture of pictures) {
      const { box, rows, sources } = picture;
      picture.chart?.dispose();
      const chart = (picture.chart = echarts.init(box, null, { renderer: "svg" }));
      const tops = HEIGHTS.map((_, n) => HEIGHTS.slice(0, n).reduce((a, h) => a + h + GAP, 4));
      const line = (n, of, more) => ({ type: "line", silent: true, showSymbol: false, xAxisIndex: n, yAxisIndex: n,
        lineStyle: { width: 1.5, color: css("--accent") }, areaStyle: { color: css("--accent"), opacity: 0.12, origin: "start" },
        data: rows.map((r) => [r[0], r[of]]), ...more });
      const lengths = rows.map((r) => r[2]);
      chart.setOption({
        animation: false,
        grid: HEIGHTS.map((height, n) => ({ left: 58, right: 2, top: tops[n], height })),
        title: ["rate", "length", "mixture"].map((text, n) => ({ text, left: 0, top: tops[n] + HEIGHTS[n] / 2 - 8, textStyle: { fontSize: 12, fontWeight: 400, color: css("--soft") }, padding: 0 })),
        xAxis: HEIGHTS.map((_, n) => ({ type: "value", gridIndex: n, min: 0, max: 1, show: false })),
        yAxis: HEIGHTS.map((_, n) => n === 1
          ? { type: "log", logBase: 2, gridIndex: n, show: false, min: Math.min(...lengths) / 2, max: Math.max(...lengths) }
          : { type: "value", gridIndex: n, show: false, min: 0, ...(n ? { max: 1 } : {}) }),
        series: [
          line(0, 1), line(1, 2),
          ...Array.from({ length: sources }, (_, k) => line(2, 3 + k, { stack: "all", lineStyle: { width: 0 }, areaStyle: { color: color(k), opacity: 0.9 } })),
        ],
      });
    }
  }
  function arrange() {
    const by = $("sort").value, word = $("word").value.trim().toLowerCase();
    const least = (card) => (by === "title" ? 0 : -card.dataset[by]);
    const sorted = [...cards].sort((a, b) => least(a) - least(b) || a.dataset.title.localeCompare(b.dataset.title, "en"));
    document.querySelector(".cards").append(...sorted);
    for (const card of cards) card.hidden = !card.textContent.toLowerCase().includes(word);
    const left = cards.filter((card) => !card.hidden).length;
    $("found").textContent = left === cards.length ? "" : `${left} of ${cards.length}`;
  }
  $("sort").onchange = $("word").oninput = arrange;
  arrange();
  drawn(draw);
})();
