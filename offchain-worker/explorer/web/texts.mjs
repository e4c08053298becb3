// Every text that the pages ask for is in every language, and none is there that nobody asks for.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const pages = join(dirname(fileURLToPath(import.meta.url)), "../pages");
const files = (folder) => readdirSync(folder, { withFileTypes: true }).flatMap((one) => (one.isDirectory() ? files(join(folder, one.name)) : [join(folder, one.name)]));
const scripts = files(join(pages, "js")).filter((file) => file.endsWith(".js")).map((file) => readFileSync(file, "utf8"));
const languages = JSON.parse(readFileSync(join(pages, "messages/index.json"), "utf8"));

const plain = new Set();
const patterns = [];
for (const script of scripts) {
  for (const [, call] of script.matchAll(/\b(?:t|has)\(((?:[^()]|\([^()]*\))*)/g)) {
    for (const [, key] of call.matchAll(/"([a-z][\w.-]*)"/g)) plain.add(key);
    for (const [, key] of call.matchAll(/`([^`]+)`/g)) patterns.push(new RegExp(`^${key.split(/\$\{[^}]*\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("[\\w.-]+")}$`));
  }
}

let wrong = 0;
const say = (text) => { wrong += 1; console.error(text); };
const english = JSON.parse(readFileSync(join(pages, "messages/en.json"), "utf8"));
const counted = (words, key) => key in words || (`${key}.one` in words && `${key}.other` in words);
for (const key of plain) {
  // Words in a call that are no keys (names of gaps, choices) have no dot; keys without one are checked by name.
  if (!counted(english, key) && key.includes(".")) say(`no text for ${key}`);
}
for (const key of Object.keys(english)) {
  const base = key.replace(/\.(one|other)$/, "");
  if (!plain.has(key) && !plain.has(base) && !patterns.some((pattern) => pattern.test(key) || pattern.test(base))) say(`nobody asks for ${key}`);
}
for (const language of languages) {
  const words = JSON.parse(readFileSync(join(pages, `messages/${language}.json`), "utf8"));
  for (const [key, text] of Object.entries(english)) {
    if (!(key in words)) { say(`${language}: no text for ${key}`); continue; }
    const gaps = (one) => [...one.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort().join();
    if (gaps(words[key]) !== gaps(text)) say(`${language}: ${key} has other gaps: ${words[key]}`);
  }
  for (const key of Object.keys(words)) if (!(key in english)) say(`${language}: ${key} is no text`);
}
console.log(`${Object.keys(english).length} texts in ${languages.length} language${languages.length === 1 ? "" : "s"}`);
process.exitCode = wrong ? 1 : 0;
