// @ts-check
import { ask, Refused } from "../api.js";
import { facts, foreign, h, section, signs, table } from "../dom.js";
import { account, amount, count, duration, hash, money, nodeLink, ratio, ratioOf, time, unit } from "../format.js";
import { t } from "../i18n.js";
import { head, reason, stateTag, steps } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ params, signal, status }) {
  const [id] = params;
  const title = t("task.title", { task: id });
  const body = h("div", { class: "stack" });
  /** @param {any} detail */
  async function draw(detail) {
    const explanation = detail.task.ending ? await ask(`tasks/${id}/explanation`, {}, signal).catch((error) => { if (error instanceof Refused && error.status > 0) return null; throw error; }) : null;
    body.replaceChildren(...content(detail, explanation, status));
  }
  await draw(await ask(`tasks/${id}`, {}, signal));
  return {
    title,
    content: [body],
    onNews: (news) => {
      if (news.tasks.some((/** @type {any} */ task) => String(task.task) === id)) void ask(`tasks/${id}`, {}, signal).then(draw).catch(() => {});
    },
  };
}

/**
 * @param {any} detail
 * @param {any} explanation
 * @param {any} status
 */
function content(detail, explanation, status) {
  const { task } = detail;
  const open = !task.ending;
  /** @type {Node[]} */
  const parts = [
    head(t("task.title", { task: String(task.task) }), open ? t(`doing.${task.phase}`) : t(`ending.${task.ending}.long`), stateTag(task)),
    h(
      "div",
      { class: "columns" },
      h(
        "div",
        { class: "panel" },
        h("h2", null, t("task.asked")),
        open ? h("p", null, steps(task), " ", h("span", { class: "muted small" }, t("task.until", { time: duration(Math.max(0, task.deadline - (status.tip?.at ?? 0))) }))) : null,
        facts([
          [t("task.requester"), account(task.requester)],
          [t("task.fee"), money(task.fee, { named: true })],
          [t("task.answers"), String(task.outputs)],
          [t("task.panel"), t("task.panel.n", { count: task.panel })],
          [t("task.kind"), h("a", { href: `/parameters#kind-${task.kind}` }, t("task.kind.n", { kind: String(task.kind), version: String(task.version) }))],
          [t("task.requested"), [time(task.requested_at), " · ", blockLink(task.requested_block)]],
          [t("task.ended"), task.ended_block === null ? null : [time(task.ended_at), " · ", blockLink(task.ended_block)]],
          [t("task.took"), task.ended_at ? duration(task.ended_at - task.requested_at) : null],
          [t("task.early"), task.early ? t("task.early.yes") : null],
          [t("task.input"), task.inline ? t("task.input.inline") : task.input_url ? foreign(task.input_url) : null],
          [t("task.input.hash"), hash(task.input_hash)],
          [t("task.collected"), task.collected_block === null ? (open ? null : t("task.collected.no")) : blockLink(task.collected_block)],
        ]),
      ),
      open ? duties(detail) : flow(task),
    ),
  ];
  if (explanation) {
    parts.push(formula(explanation, detail.lines), scores(explanation), checks(explanation));
    if (explanation.audit) parts.push(reference(explanation));
  }
  parts.push(events(detail.events));
  return parts;
}

/** @param {number} block */
function blockLink(block) {
  return h("a", { href: `/block/${block}` }, t("block.n", { block: String(block) }));
}

/** @param {any} detail */
function duties(detail) {
  return h(
    "div",
    { class: "panel" },
    h("h2", null, t("task.duties")),
    table({
      caption: t("task.duties"),
      rows: detail.duties,
      columns: [
        { label: t("node"), cell: (duty) => nodeLink(duty.node) },
        { label: t("node.role"), cell: (duty) => t(`role.${duty.role}`) },
        { label: t("node.duty"), cell: (duty) => t(`duty.${duty.state}`) },
      ],
    }),
  );
}

/**
 * Where the fee went.
 * @param {any} task
 */
function flow(task) {
  const parts = /** @type {[string, string][]} */ ([["paid", task.paid], ["keepers", task.keepers], ["treasury", task.treasury], ["burned", task.burned], ["refund", task.refund]]);
  const fee = BigInt(task.fee);
  const share = (/** @type {string} */ part) => (fee > 0n ? Number((BigInt(part) * 10_000n) / fee) / 100 : 0);
  const bar = h("div", { class: "split", role: "img", "aria-label": parts.map(([name, part]) => `${t(`flow.${name}`)} ${share(part)} %`).join(", ") });
  for (const [name, part] of parts) {
    const piece = h("i", { title: `${t(`flow.${name}`)}: ${amount(part)} ${unit.symbol}` });
    piece.style.flex = `${share(part)} 0 0`;
    if (share(part) > 0) bar.append(piece); else bar.append(h("i", { hidden: true }));
  }
  return h(
    "div",
    { class: "panel" },
    h("h2", null, t("flow.title")),
    bar,
    table({
      caption: t("flow.title"),
      rows: parts,
      columns: [
        { label: t("flow.to"), cell: ([name]) => t(`flow.${name}`) },
        { label: "%", right: true, cell: ([, part]) => share(part).toLocaleString(undefined, { maximumFractionDigits: 1 }) },
        { label: unit.symbol, right: true, cell: ([, part]) => money(part, { digits: 6 }) },
      ],
      foot: [t("flow.fee"), "100", money(task.fee, { digits: 6 })],
    }),
    task.slashed === "0" ? null : h("p", { class: "small muted" }, t("flow.slashed", { amount: amount(task.slashed), unit: unit.symbol })),
  );
}

/**
 * R = α·x − β·C with its numbers, node by node.
 * @param {any} explanation
 * @param {any[]} lines
 */
function formula(explanation, lines) {
  const { params, nodes, input } = explanation;
  const consensus = explanation.ending === "consensus";
  let output = 0;
  let seat = -1;
  const terms = nodes.map((/** @type {any} */ node) => {
    const line = lines.find((one) => one.node === node.node && one.role === node.role);
    const header = h("header", null, h("h3", null, nodeLink(node.node)), h("span", { class: "muted" }, t(`role.${node.role}`), " · ", t(`conduct.${node.conduct}`)), h("span", { class: "grow" }), h("strong", { class: "n" }, money(node.payout, { named: true, digits: 6 })), node.slashed === "0" ? null : h("span", { class: "tag bad" }, t("formula.slashed", { amount: amount(node.slashed), unit: unit.symbol })));
    /** @type {Node[]} */
    const rows = [];
    if (node.role === "inference") {
      const told = input.outputs[output];
      output += 1;
      if (consensus && node.quality_or_merit !== null && params) rows.push(...answerLines(node, told, params));
    } else {
      do seat += 1; while (input.panel[seat]?.conduct === "vacant");
      if (consensus && node.quality_or_merit !== null && params) rows.push(...scoreLines(node, seat, explanation));
    }
    if (rows.length) rows.push(...payLines(node));
    return h("div", { class: "term" }, header, rows.length ? h("div", { class: "formula", role: "group", tabindex: "0", "aria-label": t("formula.of", { node: String(node.node) }) }, rows) : null, line ? h("p", { class: "small" }, reason(line)) : null);
  });
  return section(t("formula.title"), consensus ? t("formula.note") : t("formula.none"), null, h("div", { class: "panel" }, terms));
}

/** @param {...import("../dom.js").Children} parts */
function row(...parts) {
  return h("div", { class: "line" }, ...parts);
}
const sym = (/** @type {string} */ text) => h("span", { class: "sym" }, text);
const bold = (/** @type {string} */ text) => h("b", null, text);
const share = (/** @type {number} */ part, /** @type {number} */ whole) => Math.max(0, Math.min(1, whole > 0 ? part / whole : 1)) * 1e9;

/**
 * @param {any} node
 * @param {any} told
 * @param {any} params
 */
function answerLines(node, told, params) {
  const { min_ms: low, max_ms: high } = params.inference_latency;
  const late = share(node.latency_ms - low, high - low);
  const dear = Number((BigInt(told.price) * 1_000_000_000n) / (BigInt(params.price_cap) || 1n));
  return [
    row(sym("C = ω_latency·clip((L − L_min)/(L_max − L_min)) + ω_price·clip(price/cap)")),
    row(sym("  = "), `${ratio(params.latency_weight)} × (${secs(node.latency_ms)} − ${secs(low)}) / (${secs(high)} − ${secs(low)}) + ${ratio(params.price_weight)} × ${amount(told.price)} / ${amount(params.price_cap)}`),
    row(sym("  = "), `${ratio(params.latency_weight)} × ${ratio(late)} + ${ratio(params.price_weight)} × ${ratio(Math.min(1e9, dear))} = `, bold(ratio(node.cost, 6))),
    row(sym("R = α·Q − β·C = "), `${ratio(node.alpha)} × ${ratio(node.quality_or_merit, 6)} − ${ratio(node.beta)} × ${ratio(node.cost, 6)} = `, bold(ratio(node.net, 6))),
  ];
}

/**
 * @param {any} node
 * @param {number} seat
 * @param {any} explanation
 */
function scoreLines(node, seat, { input, params, recorded }) {
  const { min_ms: low, max_ms: high } = params.evaluator_latency;
  const [before, after] = [input.panel[seat].due, recorded.panel[seat].due];
  const informed = node.gain !== null && params.merit?.information !== undefined;
  const reference = informed ? Math.max(input.population.reference, params.merit.information.floor) : 0;
  // What the task added to what was due is what is left of it and what was paid of it.
  return [
    ...(informed
      ? [
          row(sym("due = due₀ + slot·clip(x/x_ref, −2, 2) = "), `${amount(before)} + ${amount(node.slot)} × clip(${ratio(node.gain, 6)} / ${ratio(reference, 6)}, −2, 2)`),
          row(sym("a = clip(due/8 / slot, 0, 1) → "), bold(ratio(node.quality_or_merit, 6)), sym(`, ${t("formula.due")} `), amount(after)),
        ]
      : [row(sym("a = 1 − mean |s − Q| = "), `1 − ${ratio(node.deviation, 6)} → `, bold(ratio(node.quality_or_merit, 6)))]),
    row(sym("C = clip((L − L_min)/(L_max − L_min)) = "), `(${secs(node.latency_ms ?? 0)} − ${secs(low)}) / (${secs(high)} − ${secs(low)}) = `, bold(ratio(node.cost, 6))),
    row(sym("R = α·a − β·C = "), `${ratio(node.alpha)} × ${ratio(node.quality_or_merit, 6)} − ${ratio(node.beta)} × ${ratio(node.cost, 6)} = `, bold(ratio(node.net, 6))),
  ];
}

/** @param {any} node */
function payLines(node) {
  if (node.net < 0) return [row(sym("R < 0: "), t("formula.negative"))];
  return [row(sym("payout = slot · R/α = "), `${amount(node.slot)} × ${ratio(node.net, 6)} / ${ratio(node.alpha)} = `, bold(`${amount(node.payout)} ${unit.symbol}`))];
}

/** @param {number} ms */
function secs(ms) {
  return `${(ms / 1_000).toLocaleString(undefined, { maximumFractionDigits: 3 })} s`;
}

/**
 * Who scored what.
 * @param {any} explanation
 */
function scores(explanation) {
  const { input, recorded, nodes } = explanation;
  const answers = nodes.filter((/** @type {any} */ node) => node.role === "inference");
  const seats = nodes.filter((/** @type {any} */ node) => node.role === "evaluator");
  if (seats.length === 0) return h("span", { hidden: true });
  const conducts = input.panel.filter((/** @type {any} */ one) => one.conduct !== "vacant");
  const rows = seats.map((/** @type {any} */ node, /** @type {number} */ at) => ({ node, input: conducts[at] }));
  const cell = (/** @type {any} */ one, /** @type {number} */ answer) => {
    const revealed = one.conduct?.revealed;
    if (!revealed) return h("span", { class: "muted" }, t(`conduct.${one.conduct}`));
    const score = revealed[answer];
    if (typeof score === "number") return ratioOf(score, 4);
    return h("span", { class: "muted" }, t(score === "no_input" ? "score.no-input" : "score.unavailable"));
  };
  return section(
    t("scores.title"),
    t("scores.note"),
    null,
    h(
      "div",
      { class: "panel" },
      table({
        caption: t("scores.title"),
        rows,
        columns: [
          { label: t("scores.by"), cell: (one) => nodeLink(one.node.node) },
          ...answers.map((/** @type {any} */ answer, /** @type {number} */ at) => ({ label: t("scores.of", { node: String(answer.node) }), right: true, cell: (/** @type {any} */ one) => cell(one.input, at) })),
          { label: t("scores.trust"), right: true, cell: (one) => ratioOf(one.node.trust?.[0], 4) },
          { label: t("scores.deviation"), right: true, cell: (one) => ratioOf(one.node.deviation, 4) },
          { label: t("scores.gain"), right: true, cell: (one) => ratioOf(one.node.gain, 4) },
        ],
        foot: [t("scores.consensus"), ...answers.map((/** @type {any} */ _, /** @type {number} */ at) => ratioOf(recorded.outputs[at]?.quality, 4)), "", "", ""],
      }),
    ),
  );
}

/** @param {any} explanation */
function checks(explanation) {
  const agrees = explanation.differences.length === 0;
  const items = explanation.checks.map((/** @type {any} */ check) => {
    const skipped = check.found?.skipped;
    const found = skipped !== undefined ? "skipped" : check.found;
    const mark = { agrees: "✓", differs: "✗", skipped: "–" }[/** @type {string} */ (found)];
    return h("li", { class: found }, h("span", { class: "mark", "aria-hidden": "true" }, mark), h("span", null, h("span", { class: "sr" }, `${t(`check.${found}`)}: `), foreign(check.what), skipped ? h("span", { class: "muted small" }, [" ", t("checks.because", { why: skipped })]) : null));
  });
  return section(
    t("checks.title"),
    t("checks.note"),
    h("span", { class: `tag ${agrees ? "good" : "bad"}` }, agrees ? t("checks.agree") : t("checks.differ", { count: explanation.differences.length })),
    h(
      "div",
      { class: "panel" },
      h("ul", { class: "checks" }, items),
      agrees
        ? null
        : table({
            caption: t("checks.differences"),
            rows: explanation.differences,
            columns: [
              { label: t("checks.number"), cell: (one) => foreign(one.what) },
              { label: t("checks.expected"), right: true, cell: (one) => foreign(JSON.stringify(one.expected)) },
              { label: t("checks.found"), right: true, cell: (one) => foreign(JSON.stringify(one.found)) },
            ],
          }),
    ),
  );
}

/** @param {any} explanation */
function reference(explanation) {
  const { audit, nodes } = explanation;
  const answers = nodes.filter((/** @type {any} */ node) => node.role === "inference");
  return section(
    t("reference.title"),
    t("reference.note"),
    null,
    h(
      "div",
      { class: "panel" },
      facts([
        [t("reference.by"), account(audit.auditor)],
        [t("reference.block"), blockLink(audit.block.number)],
        [t("reference.text"), foreign(audit.opening.reference.text, 2_000)],
        ...answers.map((/** @type {any} */ answer, /** @type {number} */ at) => /** @type {[string, import("../dom.js").Children]} */ ([t("reference.answer", { node: String(answer.node) }), audit.opening.outputs[at] ? foreign(audit.opening.outputs[at].text, 2_000) : t("reference.none")])),
      ]),
      h("p", { class: "small muted" }, t("reference.trust")),
      table({
        caption: t("reference.moved"),
        rows: nodes.filter((/** @type {any} */ node) => node.trust),
        columns: [
          { label: t("node"), cell: (node) => nodeLink(node.node) },
          { label: t("reference.before"), right: true, cell: (node) => ratioOf(node.trust[0], 4) },
          { label: t("reference.after"), right: true, cell: (node) => ratioOf(node.trust[1], 4) },
        ],
      }),
    ),
  );
}

/** @param {any[]} all */
export function events(all) {
  return section(
    t("events.title"),
    t("events.note"),
    null,
    h(
      "ol",
      { class: "timeline panel" },
      all.map((event) =>
        h(
          "li",
          null,
          h("span", { class: "small muted" }, time(event.at), h("br", null), blockLink(event.block), ` · ${count(event.index)}`),
          h("details", null, h("summary", null, foreign(event.name)), h("pre", { tabindex: "0" }, signs(JSON.stringify(event.fields, null, 2), true))),
        ),
      ),
    ),
  );
}
