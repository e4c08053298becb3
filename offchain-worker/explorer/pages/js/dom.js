// @ts-check
// Elements. Text is text: nothing here, and nothing that uses it, reads HTML.

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 * @typedef {Child | Child[] | (Child | Child[])[]} Children
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {Element} element
 * @param {Record<string, any>} props
 */
function set(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, /** @type {EventListener} */ (listener));
    } else if (name === "href" && !/^[/#]/.test(value)) {
      // Links lead within these pages and nowhere else: what nodes and requesters wrote is shown, not followed.
      throw new Error(`a link to ${value}`);
    } else if (name.startsWith("on")) {
      throw new Error(`an attribute ${name}`);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

/**
 * @param {Element} element
 * @param {Children[]} children
 */
function append(element, children) {
  for (const child of /** @type {Child[]} */ (children.flat(Infinity))) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * An HTML element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any> | null} props
 * @param {...Children} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  if (props) set(element, props);
  append(element, children);
  return element;
}

/**
 * An SVG element.
 * @param {string} tag
 * @param {Record<string, any> | null} props
 * @param {...Children} children
 * @returns {SVGElement}
 */
export function s(tag, props, ...children) {
  const element = document.createElementNS(SVG, tag);
  if (props) set(element, props);
  append(element, children);
  return /** @type {SVGElement} */ (element);
}

/**
 * Text with the control characters, and the marks that hide in text or turn it around, as signs.
 * @param {string} text
 * @param {boolean} [lines] whether lines may end
 */
export function signs(text, lines = false) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, (mark) => (lines && mark === "\n" ? mark : "\ufffd"));
}

/**
 * What somebody else wrote: shown as it is, with what it does to the direction of writing kept inside, and what no font shows as signs.
 * @param {string} text
 * @param {number} [most]
 */
export function foreign(text, most = 300) {
  const shown = signs(text);
  const points = [...shown];
  const cut = points.length > most ? points.slice(0, most).join("") + "…" : shown;
  return h("bdi", { class: "hostile", title: points.length > most ? `${points.length} characters` : undefined }, cut);
}

/**
 * A table's column.
 * @template T
 * @typedef {{ label: Children, cell: (row: T) => Children, right?: boolean, class?: string, sort?: (row: T) => number | bigint | string, hidden?: boolean }} Column
 */

/**
 * A table. With `sort` on columns, their headers sort it.
 * @template T
 * @param {{ caption: string, columns: Column<T>[], rows: T[], key?: (row: T) => string, sorted?: number, ascending?: boolean, foot?: Children[], quiet?: boolean }} options
 */
export function table(options) {
  const columns = options.columns.filter((column) => !column.hidden);
  let { sorted, ascending = false } = options;
  const body = h("tbody", null);
  const headers = columns.map((column, at) => {
    const cell = h("th", { scope: "col", class: column.right ? "r" : undefined });
    if (column.sort) {
      cell.append(
        h("button", { type: "button", on: { click: () => { [sorted, ascending] = [at, sorted === at ? !ascending : false]; draw(); } } }, column.label),
      );
    } else {
      append(cell, [column.label]);
    }
    return cell;
  });
  function draw() {
    const rows = [...options.rows];
    const by = sorted === undefined ? undefined : columns[sorted]?.sort;
    if (by) {
      rows.sort((a, b) => {
        const [x, y] = [by(a), by(b)];
        return (x < y ? -1 : x > y ? 1 : 0) * (ascending ? 1 : -1);
      });
      headers.forEach((cell, at) => {
        if (at === sorted) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        else cell.removeAttribute("aria-sort");
      });
    }
    body.replaceChildren(
      ...rows.map((row) =>
        h(
          "tr",
          options.key ? { "data-key": options.key(row) } : null,
          columns.map((column) => h("td", { class: [column.right && "r", column.class].filter(Boolean).join(" ") || undefined }, column.cell(row))),
        ),
      ),
    );
  }
  draw();
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": options.caption },
    h(
      "table",
      null,
      h("caption", { class: options.quiet === false ? undefined : "sr" }, options.caption),
      h("thead", null, h("tr", null, headers)),
      body,
      options.foot && h("tfoot", null, h("tr", null, options.foot.map((cell, at) => h("td", { class: columns[at]?.right ? "r" : undefined }, cell)))),
    ),
  );
}

/**
 * A section with a heading.
 * @param {string} title
 * @param {Children} [note]
 * @param {Children} [tools]
 * @param {...Children} children
 */
export function section(title, note, tools, ...children) {
  return h("section", null, h("header", null, h("div", null, h("h2", null, title), note ? h("p", { class: "muted small" }, note) : null), tools), ...children);
}

/**
 * Figures: what each is, and how much.
 * @param {[label: string, value: Children, note?: Children][]} figures
 */
export function figures(figures) {
  return h(
    "dl",
    { class: "figures" },
    figures.map(([label, value, note]) => h("div", null, h("dt", null, label), h("dd", { class: "n" }, value), note ? h("dd", { class: "note" }, note) : null)),
  );
}

/**
 * Facts: names and values.
 * @param {[name: string, value: Children][]} facts
 */
export function facts(facts) {
  return h("dl", { class: "facts" }, facts.filter(([, value]) => value !== null && value !== undefined && value !== false).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]).flat());
}
