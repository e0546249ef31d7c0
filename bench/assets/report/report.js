// Draws the plots of a report: reads the data element, puts a uPlot chart into each place that waits for one.
// Text goes in as text only. Colours come from the style sheet, so light, dark and print are decided there.
'use strict';
(() => {
  const plots = JSON.parse(document.getElementById('plots').textContent);
  const places = [...document.querySelectorAll('[data-plot]')];
  let charts = [];

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = (value) => {
    if (value === null || value === undefined) return '–';
    const size = Math.abs(value);
    if (size >= 1e6) return +(value / 1e6).toPrecision(3) + ' M';
    if (size >= 1e4) return +(value / 1e3).toPrecision(3) + ' k';
    return String(+value.toPrecision(size >= 1e3 ? 4 : 3));
  };
  // 2 nines and a bit is 99.x %.
  const percentile = (nines) => {
    const beyond = Math.pow(10, -nines) * 100;
    return +(100 - beyond).toFixed(Math.max(0, Math.ceil(nines) - 1)) + ' %';
  };

  // One colour a name over the whole page, so that a server looks the same in every plot.
  const colours = new Map();
  const colour = (curve) => {
    if (curve.is_ours) return style('--ours');
    if (!colours.has(curve.name)) colours.set(curve.name, colours.size % 8);
    return style('--line-' + colours.get(curve.name));
  };

  // All curves on the union of their x values; a hole where a curve has none.
  const joined = (lines) =>
    uPlot.join(lines.map((line) => [line.points.map((p) => p[0]), line.points.map((p) => p[1])]));

  function options(plot, width, height) {
    const ink = style('--ink-soft'), grid = style('--rule');
    const powers = plot.scale === 'powers', percentiles = plot.scale === 'percentiles';
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 },
      font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif', labelSize: 18 };
    const xs = [...new Set(plot.lines.flatMap((line) => line.points.map((p) => p[0])))].sort((a, b) => a - b);
    const x = { ...axis, label: plot.x, space: 48, values: (_, splits) => splits.map(digits) };
    if (percentiles) {
      x.splits = (_, __, min, max) => [0, 1, 2, 3, 4, 5, 6, 7].filter((n) => n >= min && n <= max);
      x.values = (_, splits) => splits.map(percentile);
    } else if (powers) {
      x.splits = () => xs;
      x.filter = (_, splits) => splits;
    } else if (xs.length < 12 && xs.every(Number.isInteger)) {
      x.incrs = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000];
    }
    const log = percentiles || powers;
    const y = { ...axis, label: plot.y, size: 62, values: (_, splits) => splits.map((v) => (v === null ? '' : digits(v))) };
    if (log) y.filter = (_, splits) => splits.map((v) => (/^[125]/.test(v.toExponential()) ? v : null));
    return {
      width, height, padding: [12, 14, 0, 0],
      scales: {
        x: { time: false, distr: powers ? 3 : 1, log: 2 },
        y: { distr: log ? 3 : 1, range: log ? undefined : (_, min, max) => [0, (max || 1) * 1.08] },
      },
      axes: [x, y],
      legend: { live: true, markers: { width: 0, fill: (u, i) => (i ? u.series[i]._colour : undefined) } },
      cursor: { points: { size: 7 }, drag: { x: false, y: false } },
      series: [
        { label: plot.x, value: (_, v) => (v === null ? '–' : percentiles ? percentile(v) : digits(v)) },
        ...plot.lines.map((line) => ({
          label: line.name, stroke: colour(line), _colour: colour(line), width: line.is_ours ? 3 : 1.75, spanGaps: true,
          points: { show: line.points.length < 40 && !percentiles, size: line.is_ours ? 7 : 5, fill: colour(line) },
          value: (_, v) => digits(v),
        })),
      ],
    };
  }

  function draw() {
    charts.forEach((chart) => chart.destroy());
    charts = places.map((place) => {
      const plot = plots[Number(place.dataset.plot)];
      const width = Math.max(280, Math.floor(place.clientWidth));
      return new uPlot(options(plot, width, Math.round(Math.min(360, Math.max(240, width * 0.58)))), joined(plot.lines), place);
    });
  }

  draw();
  let waiting;
  addEventListener('resize', () => { clearTimeout(waiting); waiting = setTimeout(draw, 120); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  // Paper is light whatever the screen is.
  addEventListener('beforeprint', () => { document.documentElement.classList.add('paper'); draw(); });
  addEventListener('afterprint', () => { document.documentElement.classList.remove('paper'); draw(); });
})();
