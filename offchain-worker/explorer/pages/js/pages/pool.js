// @ts-check
import { ask } from "../api.js";
import { bars } from "../chart.js";
import { facts, figures, foreign, h, section, table } from "../dom.js";
import { account, amount, day, duration, hash, money, nodeLink, percent, plotted, time, unit } from "../format.js";
import { t } from "../i18n.js";
import { head } from "../parts.js";

/** Beyond every time that there is. */
const NEVER = 8e15;

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ params, signal, status }) {
  const { pool, income, members } = await ask(`pools/${params[0]}`, {}, signal);
  const { rules, ledger, room } = pool.state;
  const title = t("pool.title");
  /** @type {Map<number, { earned: bigint, slashed: bigint }>} */
  const days = new Map();
  for (const one of income) {
    const at = Math.floor(one.at / 86_400_000);
    const sum = days.get(at) ?? { earned: 0n, slashed: 0n };
    days.set(at, { earned: sum.earned + BigInt(one.shares_earned), slashed: sum.slashed + BigInt(one.shares_slashed) });
  }
  const shown = [...days].sort((a, b) => a[0] - b[0]).slice(-60);
  const changing = ledger.next_from < NEVER && ledger.next_from > (status.tip?.at ?? 0);
  const content = [
    head(title, foreign(pool.name || pool.symbol || t("pool.unnamed"), 80), h("span", { class: `tag ${pool.stage === "open" ? "good" : "warn"}` }, t(`stage.${pool.stage}`))),
    changing ? h("div", { class: "notice warn" }, h("p", null, t("pool.changing")), h("p", null, h("span", { class: "from" }, percent(ledger.terms.commission)), " → ", h("span", { class: "to" }, percent(ledger.next.commission)), " ", t("pool.from"), " ", time(ledger.next_from))) : h("span", { hidden: true }),
    figures([
      [t("pool.yield"), pool.yield_ppb === null ? "–" : percent(pool.yield_ppb), t("pool.yield.note")],
      [t("pool.active"), money(pool.active, { named: true, digits: 2 }), t("pool.active.note")],
      [t("pool.bond"), money(pool.bond, { named: true, digits: 2 }), t("pool.bond.note")],
      [t("pool.commission"), percent(ledger.terms.commission), t("pool.commission.note", { most: percent(rules.commission_max) })],
      [t("pool.room"), money(room, { named: true, digits: 0 })],
    ]),
    h(
      "div",
      { class: "columns" },
      h("div", { class: "panel" }, h("h2", null, t("pool.income", { unit: unit.symbol })), shown.length ? bars({ label: t("pool.income", { unit: unit.symbol }), series: [t("pool.earned"), t("pool.lost")], days: shown.map(([at, sum]) => ({ label: day(at), values: [plotted(String(sum.earned)), plotted(String(sum.slashed))], shown: [amount(sum.earned, 4), amount(sum.slashed, 4)] })) }) : h("p", { class: "empty" }, t("pool.income.none"))),
      h(
        "div",
        { class: "panel" },
        h("h2", null, t("pool.facts")),
        facts([
          [t("pool.address"), h("span", { class: "mono" }, pool.pool)],
          [t("node"), nodeLink(pool.node)],
          [t("pool.manager"), account(pool.manager)],
          [t("pool.symbol"), pool.symbol ? foreign(pool.symbol, 30) : null],
          [t("pool.price"), [money(pool.price), ` ${unit.symbol}`]],
          [t("pool.first-loss"), percent(rules.first_loss)],
          [t("pool.era"), duration(rules.era_ms)],
          [t("pool.exit-time"), duration(rules.exit_ms)],
          [t("pool.exiting"), money(ledger.exiting, { named: true })],
          [t("pool.vesting"), money(ledger.vesting, { named: true })],
          [t("pool.code"), hash(pool.code)],
          [t("pool.made"), time(pool.created_at)],
        ]),
      ),
    ),
    section(t("pool.take-part"), t("pool.take-part.note"), null, h("div", { class: "panel" }, h("p", null, t("pool.join")), h("pre", { tabindex: "0" }, `poq pool deposit ${pool.pool} 100 --key-file KEY`), h("p", null, t("pool.leave", { era: duration(rules.era_ms), exit: duration(rules.exit_ms) })), h("pre", { tabindex: "0" }, `poq pool exit ${pool.pool} --all --key-file KEY\npoq pool claim ${pool.pool} --key-file KEY`), h("p", { class: "muted small" }, t("pool.risk")))),
    section(
      t("pool.members"),
      null,
      null,
      members.length
        ? table({
            caption: t("pool.members"),
            rows: members,
            columns: [
              { label: t("account"), cell: (one) => account(one.account) },
              { label: t("pool.value"), right: true, cell: (one) => money(one.value) },
              { label: t("pool.deposited"), right: true, cell: (one) => money(one.deposited) },
              { label: t("pool.paid"), right: true, cell: (one) => money(one.paid) },
            ],
          })
        : h("p", { class: "empty" }, t("pool.members.none")),
    ),
  ];
  return { title: `${title}: ${pool.symbol}`.slice(0, 60), content };
}
