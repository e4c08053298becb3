// @ts-check
import { ask } from "../api.js";
import { figures, foreign, h, section, table } from "../dom.js";
import { account as link, money, nodeLink, taskLink, time, amount, unit } from "../format.js";
import { t } from "../i18n.js";
import { growing, head, nodeTable } from "../parts.js";

const GROUPS = { "": undefined, rewards: "reward,claim,keeper_fee,withdrawal,pool_paid,pool_manager_paid", spending: "fee,refund", stake: "stake,unstake,stake_returned,slash,bond,bond_returned,bond_slashed", pools: "pool_deposit,pool_exit,pool_paid,pool_bond,pool_manager_paid,shares_in,shares_out" };

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ params, query, signal, go }) {
  const [address] = params;
  if (!address) return { title: t("account.search"), content: [head(t("account.search"), t("account.search.lead")), form("", go)] };
  const group = /** @type {keyof typeof GROUPS} */ (Object.hasOwn(GROUPS, query.get("show") ?? "") ? (query.get("show") ?? "") : "");
  const what = GROUPS[group];
  const [detail, first] = await Promise.all([ask(`accounts/${address}`, {}, signal), ask(`accounts/${address}/history`, { limit: 50, what }, signal)]);
  const { account } = detail;
  const title = t("account.title");
  const list = growing({
    first,
    more: (next) => ask(`accounts/${address}/history`, { limit: 100, what, before: next }, signal),
    draw: (items) => movements(items),
    empty: t("account.history.none"),
  });
  const available = BigInt(account.claimable) + BigInt(account.collectable) + BigInt(account.credit);
  return {
    title: `${title} ${address.slice(0, 6)}…`,
    content: [
      head(title, h("span", { class: "mono" }, account.account), account.known ? null : h("span", { class: "tag" }, t("account.unknown"))),
      form(address, go),
      account.known ? h("span", { hidden: true }) : h("div", { class: "notice" }, t("account.unknown.more")),
      figures([
        [t("account.available"), money(available, { named: true }), t("account.available.note", { rewards: amount(account.claimable, 4), refunds: amount(account.collectable, 4), credit: amount(account.credit, 4) })],
        [t("account.rewards"), money(account.rewards, { named: true }), t("account.rewards.note", { claimed: amount(account.claimed, 4) })],
        [t("account.bonded"), money(account.bonded, { named: true, digits: 2 }), t("account.bonded.note", { locked: amount(account.locked, 2), unbonding: amount(account.unbonding, 2) })],
        [t("account.slashed"), money(account.slashed, { named: true })],
        [t("account.fees"), money(account.fees, { named: true, digits: 2 }), t("account.fees.note", { tasks: account.tasks, refunds: amount(account.refunds, 2), escrow: amount(account.escrow, 2) })],
      ]),
      available > 0n ? h("div", { class: "notice" }, h("p", null, t("account.how")), h("pre", null, `poq claim --key-file KEY\npoq task collect --all --key-file KEY`)) : h("span", { hidden: true }),
      detail.pools.length || detail.manages.length ? section(t("account.pools"), t("account.pools.note"), null, h("div", { class: "panel" }, holdings(detail))) : h("span", { hidden: true }),
      detail.nodes.length ? section(t("account.nodes"), null, null, nodeTable(detail.nodes, t("account.nodes"))) : h("span", { hidden: true }),
      section(
        t("account.history"),
        t("account.history.note"),
        h("div", { class: "segments", role: "group", "aria-label": t("account.history") }, Object.keys(GROUPS).map((one) => h("a", { href: one ? `/account/${address}?show=${one}` : `/account/${address}`, "aria-current": one === group ? "true" : undefined }, t(`account.show.${one || "all"}`)))),
        exporter(address),
        list.node,
      ),
      account.tasks > 0 ? h("p", null, h("a", { href: `/tasks?requester=${account.account}` }, t("account.tasks", { count: account.tasks }))) : h("span", { hidden: true }),
    ],
  };
}

/**
 * @param {string} address
 * @param {(path: string) => void} go
 */
function form(address, go) {
  const input = h("input", { id: "address", value: address || undefined, autocomplete: "off", spellcheck: "false", required: true, placeholder: "5Grwva…" });
  const wrong = h("p", { class: "notice bad", role: "alert", hidden: true });
  const element = h(
    "form",
    { class: "inline", on: { submit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      const typed = input.value.trim();
      // The server knows whether the checksum fits.
      try {
        await ask(`accounts/${encodeURIComponent(typed)}`);
        go(`/account/${typed}`);
      } catch (error) {
        wrong.replaceChildren(foreign(error instanceof Error && error.message ? error.message : t("error.offline")));
        wrong.hidden = false;
      }
    } } },
    h("label", { class: "grow" }, t("account.address"), input),
    h("button", { type: "submit", class: "primary" }, t("account.look")),
  );
  return h("div", null, element, wrong);
}

/** @param {any} detail */
function holdings(detail) {
  return h(
    "div",
    null,
    detail.pools.length
      ? table({
          caption: t("account.pools"),
          rows: detail.pools,
          columns: [
            { label: t("pool"), cell: (one) => [link(one.pool, { to: "pool" }), " ", foreign(one.name || one.symbol, 40)] },
            { label: t("pool.value"), right: true, cell: (one) => money(one.value) },
            { label: t("pool.deposited"), right: true, cell: (one) => money(one.deposited) },
            { label: t("pool.exited"), right: true, cell: (one) => money(one.exited) },
            { label: t("pool.paid"), right: true, cell: (one) => money(one.paid) },
            { label: t("pool.gain"), right: true, cell: (one) => money(BigInt(one.value) + BigInt(one.exited) - BigInt(one.deposited), { signed: true }) },
          ],
        })
      : null,
    detail.manages.map((/** @type {string} */ pool) => h("p", null, t("account.manages"), " ", link(pool, { to: "pool" }))),
  );
}

/** @param {any[]} items */
function movements(items) {
  return table({
    caption: t("account.history"),
    rows: items,
    columns: [
      { label: t("account.when"), cell: (entry) => time(entry.at) },
      { label: t("account.what"), cell: (entry) => t(`what.${entry.what}`) },
      { label: t("account.about"), cell: (entry) => [entry.task === null ? null : taskLink(entry.task), entry.task !== null && entry.node !== null ? " · " : null, entry.node === null ? null : nodeLink(entry.node), entry.pool ? [" ", link(entry.pool, { to: "pool" })] : null] },
      { label: t("account.in"), right: true, cell: (entry) => (entry.cash > 0 ? money(entry.amount) : "") },
      { label: t("account.out"), right: true, cell: (entry) => (entry.cash < 0 ? money(entry.amount) : "") },
      { label: t("account.neither"), right: true, cell: (entry) => (entry.cash === 0 ? h("span", { class: "muted" }, money(entry.amount)) : "") },
    ],
  });
}

/** @param {string} address */
function exporter(address) {
  const now = new Date().getFullYear();
  const link = h("a", { class: "button", download: true, href: `/v1/accounts/${address}/history.csv` }, t("account.csv", { unit: unit.symbol }));
  const years = h("select", { id: "year", on: { change: () => {
    const year = Number(years.value);
    const range = year ? `?from=${Date.UTC(year, 0, 1)}&until=${Date.UTC(year + 1, 0, 1)}` : "";
    link.setAttribute("href", `/v1/accounts/${address}/history.csv${range}`);
  } } }, h("option", { value: "" }, t("account.csv.all")), Array.from({ length: 6 }, (_, at) => h("option", { value: String(now - at) }, String(now - at))));
  return h("div", { class: "inline" }, h("form", { class: "inline" }, h("label", null, t("account.csv.year"), years), link));
}
