// @ts-check
import { ask } from "../api.js";
import { facts, h } from "../dom.js";
import { time } from "../format.js";
import { t } from "../i18n.js";
import { head } from "../parts.js";
import { events } from "./task.js";

/** @type {(context: import("../app.js").Context) => Promise<import("../app.js").Page>} */
export async function page({ params, signal }) {
  const block = await ask(`blocks/${params[0]}`, {}, signal);
  const title = t("block.title", { block: String(block.number) });
  return {
    title,
    content: [head(title), h("div", { class: "panel" }, facts([[t("block.time"), time(block.at)], [t("block.hash"), h("code", null, block.hash)]])), events(block.events)],
  };
}
