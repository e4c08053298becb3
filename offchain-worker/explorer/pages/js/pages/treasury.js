// @ts-check
import { ask } from "../api.js";
import { bars } from "../chart.js";
import { figures, h, section, table } from "../dom.js";
import { account, amount, day, money, plotted, unit } from "../format.js";
import { t } from "../i18n.js";
import { head } from "../parts.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ signal }) {
  const title = t("treasury.title");
  const overview = await ask("overview", { days: 60 }, signal).catch((error) => { if (error.status === 404) return null; throw error; });
  if (!overview) return { title, content: [head(title, t("treasury.lead")), h("p", { class: "empty" }, t("overview.empty"))] };
  const days = [...overview.days].reverse();
  const owed = /** @type {[string, string][]} */ (["stakes", "escrow", "refunds", "claimable", "bonds", "treasury", "burned"].map((name) => [name, overview.owes[name]]));
  const total = owed.reduce((sum, [, part]) => sum + BigInt(part), 0n);
  const content = [
    head(title, t("treasury.lead")),
    figures([
      [t("treasury.in"), money(overview.treasury, { named: true }), t("treasury.out", { amount: amount(overview.treasury_withdrawn, 4) })],
      [t("treasury.burned"), money(overview.burned, { named: true }), t("treasury.sent", { amount: amount(overview.sent, 4) })],
      [t("treasury.slashed"), money(overview.slashed, { named: true }), t("treasury.slashed.note")],
      [t("treasury.fees"), money(overview.fees, { named: true, digits: 2 })],
    ]),
    h("div", { class: "panel" }, h("h2", null, t("treasury.by-day", { unit: unit.symbol })), days.length ? bars({ label: t("treasury.by-day", { unit: unit.symbol }), series: [t("treasury.series.in"), t("treasury.series.burned")], days: days.map((one) => ({ label: day(one.day), values: [plotted(one.treasury), plotted(one.burned)], shown: [amount(one.treasury, 4), amount(one.burned, 4)] })) }) : h("p", { class: "empty" }, t("chart.none"))),
    section(
      t("treasury.owes"),
      t("treasury.owes.note"),
      null,
      h("div", { class: "panel" }, table({ caption: t("treasury.owes"), rows: owed, columns: [{ label: t("treasury.name"), cell: ([name]) => t(`owes.${name}`) }, { label: t("treasury.what"), class: "wide", cell: ([name]) => h("span", { class: "muted" }, t(`owes.${name}.note`)) }, { label: unit.symbol, right: true, cell: ([, part]) => money(part) }], foot: [t("treasury.total"), "", money(total)] })),
    ),
    h("p", { class: "small muted" }, t("treasury.owner"), " ", account(overview.owner)),
  ];
  return { title, content };
}
