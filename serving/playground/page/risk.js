/**
 * What triage found in the post, said plainly: level, what to do, local help.
 *
 * The level is a word and a sign, never a colour alone. Nothing found is no all-clear, and it says so.
 */

import { byId, element } from "./dom.js";

const HEADINGS = {
  none: "No sign of risk was found",
  elevated: "Elevated risk: signs in this post need attention",
  acute: "Acute risk: this person may be in danger now",
};
const FAINT = "Faint signs of risk, not enough for a warning";
const SIGNS = { none: "○", elevated: "▲", acute: "■" };
const MEANING = {
  none: "Rules can miss what a person would see, most of all what stands between the lines. Trust your own reading of the post over this line.",
  elevated: "Read the post again with that in mind, and follow your service's own rules where you are in doubt.",
  acute: "Do not answer this alone, and do not leave it unanswered.",
};
const ACTIONS = {
  none: "",
  show_resources: "What to do: give the person the crisis help of where they live, together with your reply.",
  hand_over: "What to do: hand over to a trained person at once, and give the person the crisis help of where they live.",
};

/** Shows `answer`'s risk; `resources` are the operator's lines about local help. */
export function showRisk(answer, resources) {
  const { level, signals = [] } = answer.risk;
  const action = answer.resources_required && answer.risk.action === "none" ? "show_resources" : answer.risk.action;
  const known = Object.hasOwn(HEADINGS, level) ? level : "acute"; // a level from a later version: the careful reading
  const panel = byId("risk");
  const heading = known === "none" && signals.length ? FAINT : HEADINGS[known];
  panel.dataset.level = known;
  byId("risk-heading").replaceChildren(
    element("span", { className: "sign", "aria-hidden": "true" }, SIGNS[known]), ` ${heading}`,
  );
  const lines = [ACTIONS[action] ?? "", MEANING[known]].filter(Boolean).map((line) => element("p", {}, line));
  if (answer.resources_required) lines.push(...help(resources));
  if (signals.length) {
    lines.push(element("p", { className: "hint" }, `Rules that spoke: ${signals.join(", ")}`));
  }
  byId("risk-body").replaceChildren(...lines);
  datedRisk(false);
  panel.hidden = false;
  return known;
}

export function hideRisk() {
  byId("risk").hidden = true;
}

/** Says whether the panel speaks of the post as it was before it was changed. */
export function datedRisk(dated) {
  byId("risk-dated").hidden = !dated;
}

function help(resources) {
  const heading = element("h3", {}, "Crisis help to give");
  if (!resources.length) {
    return [heading, element("p", {}, "None is set up on this page. Give the emergency number and the crisis line of the country that the person lives in.")];
  }
  return [heading, element("ul", {}, ...resources.map((line) => element("li", {}, line)))];
}
