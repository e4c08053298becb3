// @ts-check
// Plots. Each has its numbers in a table beneath it, for whoever does not see it.
import { h, s, table } from "./dom.js";
import { language, t } from "./i18n.js";

const WIDTH = 720;

/**
 * Round numbers between two, about so many.
 * @param {number} low
 * @param {number} high
 * @param {number} about
 */
function ticks(low, high, about) {
  if (!(high > low)) return [low];
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
  const all = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) all.push(Number((at * step).toPrecision(12)));
  return all;
}

/** @param {number} value */
function plain(value) {
  const size = Math.abs(value);
  if (size >= 10_000) return value.toLocaleString(language, { notation: "compact", maximumFractionDigits: 1 });
  return value.toLocaleString(language, { maximumFractionDigits: size >= 100 ? 0 : size >= 1 ? 1 : 3 });
}

/**
 * @param {string} label
 * @param {SVGElement} svg
 * @param {Node | null} numbers
 * @param {Node | null} [legend]
 */
function figure(label, svg, numbers, legend = null) {
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", label);
  return h("div", { class: "chart" }, svg, legend, numbers && h("details", null, h("summary", null, t("chart.numbers")), numbers));
}

/**
 * Bars by days, one series on another.
 * @param {{ label: string, days: { label: string, values: number[], shown: string[] }[], series: string[], height?: number }} options
 */
export function bars({ label, days, series, height = 190 }) {
  const [left, right, top, bottom] = [46, 8, 10, 24];
  const most = Math.max(1e-9, ...days.map((day) => day.values.reduce((a, b) => a + b, 0)));
  const lines = ticks(0, most, 4);
  const high = Math.max(most, lines.at(-1) ?? most);
  const y = (/** @type {number} */ value) => top + (1 - value / high) * (height - top - bottom);
  const step = (WIDTH - left - right) / Math.max(days.length, 12);
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${height}` });
  for (const line of lines) {
    svg.append(s("line", { class: "grid", x1: left, x2: WIDTH - right, y1: y(line), y2: y(line) }), s("text", { x: left - 8, y: y(line) + 4, "text-anchor": "end" }, plain(line)));
  }
  const named = Math.ceil(days.length / 8);
  days.forEach((day, at) => {
    const x = left + at * step;
    let base = 0;
    const group = s("g", null, s("title", null, `${day.label}: ${series.map((name, n) => `${name} ${day.shown[n]}`).join(", ")}`));
    day.values.forEach((value, n) => {
      if (value > 0) group.append(s("rect", { class: n === 0 ? "a" : "b", x: x + step * 0.14, width: Math.max(1, step * 0.72), y: y(base + value), height: Math.max(0.5, y(base) - y(base + value)), rx: Math.min(2, step / 6) }));
      base += value;
    });
    group.append(s("rect", { x, width: step, y: top, height: height - top - bottom, fill: "transparent" }));
    svg.append(group);
    if ((days.length - 1 - at) % named === 0) svg.append(s("text", { x: x + step / 2, y: height - 6, "text-anchor": "middle" }, day.label));
  });
  const legend = series.length > 1 ? h("div", { class: "legend" }, series.map((name, n) => h("span", null, h("i", { class: n === 0 ? "a" : undefined }), name))) : null;
  const numbers = table({
    caption: label,
    columns: [{ label: t("chart.day"), cell: (day) => day.label }, ...series.map((name, n) => ({ label: name, right: true, cell: (/** @type {{ shown: string[] }} */ day) => day.shown[n] ?? "" }))],
    rows: [...days].reverse(),
  });
  return figure(label, svg, numbers, legend);
}

/**
 * A line over time.
 * @param {{ label: string, points: { at: number, value: number, shown: string }[], when: (at: number) => string, low?: number, high?: number, step?: boolean, height?: number }} options
 */
export function line({ label, points, when, low, high, step = false, height = 190 }) {
  const [left, right, top, bottom] = [46, 12, 10, 24];
  const values = points.map((point) => point.value);
  let [from, to] = [low ?? Math.min(...values), high ?? Math.max(...values)];
  if (to - from < 1e-9) [from, to] = [from - 0.05, to + 0.05];
  const lines = ticks(from, to, 4);
  const [start, end] = [points[0]?.at ?? 0, points.at(-1)?.at ?? 1];
  const x = (/** @type {number} */ at) => left + ((at - start) / Math.max(1, end - start)) * (WIDTH - left - right);
  const y = (/** @type {number} */ value) => top + (1 - (value - from) / (to - from)) * (height - top - bottom);
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${height}` });
  for (const value of lines) {
    svg.append(s("line", { class: "grid", x1: left, x2: WIDTH - right, y1: y(value), y2: y(value) }), s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, plain(value)));
  }
  const path = points.map((point, at) => `${at === 0 ? "M" : step ? `H${x(point.at).toFixed(1)}V` : "L"}${at > 0 && step ? "" : `${x(point.at).toFixed(1)},`}${y(point.value).toFixed(1)}`).join("");
  const floor = height - bottom;
  svg.append(s("path", { class: "area", d: `${path}V${floor}H${x(start).toFixed(1)}Z` }), s("path", { class: "line", d: path }));
  if (points.length <= 60) for (const point of points) svg.append(s("circle", { class: "a", cx: x(point.at), cy: y(point.value), r: 2.6 }, s("title", null, `${when(point.at)}: ${point.shown}`)));
  svg.append(s("text", { x: left, y: height - 6 }, when(start)));
  if (end > start) svg.append(s("text", { x: WIDTH - right, y: height - 6, "text-anchor": "end" }, when(end)));
  const numbers = table({
    caption: label,
    columns: [{ label: t("chart.time"), cell: (point) => when(point.at) }, { label, right: true, cell: (point) => point.shown }],
    rows: [...points].reverse(),
  });
  return figure(label, svg, numbers);
}

/**
 * Points in a plane, each leading somewhere; with lines through it.
 * @param {{ label: string, x: string, y: string, points: { x: number, y: number, size: number, label: string, href: string, other?: boolean }[], lines: { label: string, at: (x: number) => number }[], height?: number }} options
 */
export function scatter({ label, x: across, y: up, points, lines, height = 420 }) {
  const [left, right, top, bottom] = [52, 84, 14, 42];
  const edge = (/** @type {number[]} */ all, /** @type {number} */ least) => {
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const room = Math.max((high - low) * 0.12, least);
    return [Math.max(0, low - room), Math.min(1, high + room)];
  };
  const [x0, x1] = edge(points.map((point) => point.x), 0.04);
  const [y0, y1] = edge(points.map((point) => point.y), 0.04);
  const x = (/** @type {number} */ value) => left + ((value - x0) / (x1 - x0)) * (WIDTH - left - right);
  const y = (/** @type {number} */ value) => top + (1 - (value - y0) / (y1 - y0)) * (height - top - bottom);
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${height}` });
  for (const value of ticks(y0, y1, 6)) svg.append(s("line", { class: "grid", x1: left, x2: WIDTH - right, y1: y(value), y2: y(value) }), s("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, plain(value)));
  for (const value of ticks(x0, x1, 7)) svg.append(s("text", { x: x(value), y: height - bottom + 18, "text-anchor": "middle" }, plain(value)));
  svg.append(
    s("line", { class: "axis", x1: left, x2: WIDTH - right, y1: height - bottom, y2: height - bottom }),
    s("text", { class: "label", x: left + (WIDTH - left - right) / 2, y: height - 4, "text-anchor": "middle" }, across),
    s("text", { class: "label", x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${top + (height - top - bottom) / 2}) rotate(-90)` }, up),
  );
  for (const iso of lines) {
    // Cut where it leaves the plane.
    const ends = [x0, x1].map((value) => [value, iso.at(value)]);
    const [[ax, ay], [bx, by]] = /** @type {[number, number][]} */ (ends);
    const inside = (/** @type {number} */ value) => value >= y0 && value <= y1;
    if (!inside(ay) && !inside(by) && (ay - y0) * (by - y0) > 0 && (ay > y1) === (by > y1)) continue;
    const meet = (/** @type {number} */ value) => ax + ((value - ay) / (by - ay)) * (bx - ax);
    const clip = (/** @type {number} */ px, /** @type {number} */ py) => (py < y0 ? [meet(y0), y0] : py > y1 ? [meet(y1), y1] : [px, py]);
    const [p, q] = [clip(ax, ay), clip(bx, by)];
    svg.append(s("line", { class: "iso", x1: x(p[0]), y1: y(p[1]), x2: x(q[0]), y2: y(q[1]) }), s("text", { x: x(q[0]) + 5, y: y(q[1]) + 4 }, iso.label));
  }
  const largest = Math.max(1, ...points.map((point) => point.size));
  for (const point of [...points].sort((a, b) => b.size - a.size)) {
    const r = 4 + 9 * Math.sqrt(point.size / largest);
    svg.append(s("a", { href: point.href, "aria-label": point.label }, s("circle", { class: point.other ? "dot other" : "dot", cx: x(point.x), cy: y(point.y), r }, s("title", null, point.label))));
  }
  return figure(label, svg, null);
}
