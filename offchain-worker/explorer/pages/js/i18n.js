// @ts-check
// The words. All of them are in one file for each language; `messages/index.json` lists the languages that there are.

/** @type {Record<string, string>} */
let words = {};
/** The language in use. */
export let language = "en";

/** Reads the words of the first of the reader's languages that there is; English where there is none. */
export async function load() {
  const known = /** @type {string[]} */ (await (await fetch("/messages/index.json")).json());
  const chosen = new URLSearchParams(location.search).get("lang");
  const wanted = [chosen, ...navigator.languages].filter((one) => one !== null).map((one) => one.toLowerCase());
  language = wanted.flatMap((one) => [one, one.split("-")[0]]).find((one) => known.includes(one)) ?? "en";
  words = await (await fetch("/messages/en.json")).json();
  if (language !== "en") words = { ...words, ...(await (await fetch(`/messages/${language}.json`)).json()) };
  document.documentElement.lang = language;
}

/**
 * A text, with its gaps filled. A key with `.one` and `.other` beside it is chosen by `count`.
 * @param {string} key
 * @param {Record<string, string | number>} [gaps]
 */
export function t(key, gaps = {}) {
  let text = words[key];
  if (text === undefined && typeof gaps.count === "number") text = words[`${key}.${new Intl.PluralRules(language).select(gaps.count)}`] ?? words[`${key}.other`];
  if (text === undefined) {
    console.error(`no words for ${key}`);
    return key;
  }
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const gap = gaps[name];
    return typeof gap === "number" ? gap.toLocaleString(language) : String(gap ?? "");
  });
}

/**
 * Whether there is such a text.
 * @param {string} key
 */
export function has(key) {
  return key in words;
}
