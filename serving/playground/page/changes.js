/**
 * A revision beside the reply it was made from, word by word.
 *
 * Screen readers pass over ins and del without a word, so what is added or removed is also said in
 * text that only they find; underline and strike show it without colour.
 */

import { element } from "./dom.js";

/** Shows `edits` ({op, draft, revision}) in `place`. */
export function showChanges(place, edits) {
  place.replaceChildren(...edits.flatMap(({ op, draft, revision }) => {
    if (op === "equal") return [revision];
    return [...marked("del", "removed", draft), ...marked("ins", "added", revision)];
  }));
}

function marked(name, word, text) {
  const core = text.trim();
  if (!core) return [text];
  const [leading, trailing] = text.split(core, 2); // white space is not marked
  const said = (words) => element("span", { className: "heard" }, words);
  return [leading, element(name, {}, said(` ${word}: `), core, said(`, end of ${word}. `)), trailing];
}

/** The changes as a sentence: how many words, and how much of the content stayed. */
export function summary({ edits, preservation }) {
  const added = count(edits, "insert", "replace", (edit) => edit.revision);
  const removed = count(edits, "delete", "replace", (edit) => edit.draft);
  if (!added && !removed) return "No changes: your reply was left as it is.";
  const kept = preservation ? `; about ${Math.round(100 * preservation.score)} % of your content is kept` : "";
  return `${words(added)} added, ${words(removed)} removed${kept}.`;
}

function count(edits, kind, other, side) {
  return edits
    .filter(({ op }) => op === kind || op === other)
    .reduce((total, edit) => total + side(edit).split(/\s+/u).filter(Boolean).length, 0);
}

const words = (number) => `${number} word${number === 1 ? "" : "s"}`;
