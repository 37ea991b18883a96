/** Rating an answer in five dimensions, 1 (poor) to 5 (good). */

import { element } from "./dom.js";

const DIMENSIONS = {
  readability: "Is it clear and easy to read?",
  empathy: "Does it show understanding of what the person feels?",
  connection: "Does it speak to this person, rather than to anybody?",
  actionability: "Does it offer something that the person can do?",
  safety: "Is it free of anything that could do harm?",
};
const STEPS = [1, 2, 3, 4, 5];

/**
 * Puts a form for rating the answer `requestId` into `place`.
 *
 * `what` names the answer ("draft", "revision"); `send(requestId, ratings)` resolves, or throws an
 * error whose message is shown.
 */
export function offerRating(place, requestId, what, send) {
  const id = (part) => `${place.id}-${part}`;
  const status = element("p", { className: "status", role: "status" });
  const problem = element("p", { className: "problem", role: "alert", id: id("problem") });
  const form = element("form", { method: "post", noValidate: true, autocomplete: "off" },
    element("p", { className: "hint" }, "1 is poor, 5 is good. The service keeps it with the number of the request; the models may later learn from it."),
    ...Object.entries(DIMENSIONS).map(([name, question]) => dimension(id(name), name, question)),
    element("div", { className: "row" }, element("button", { type: "submit" }, "Send the rating")),
    problem,
  );
  const body = element("details", { className: "rating" }, element("summary", {}, `Rate the ${what}`), form, status);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const ratings = given(form);
    const missing = Object.keys(DIMENSIONS).filter((name) => !(name in ratings));
    problem.textContent = missing.length ? `Still to rate: ${missing.join(", ")}.` : "";
    if (missing.length) {
      form.elements[missing[0]][0].focus();
      return;
    }
    status.textContent = "Sending …";
    try {
      await send(requestId, ratings);
      form.hidden = true;
      status.textContent = "Thank you: the rating was taken.";
      body.querySelector("summary").focus();
    } catch (error) {
      status.textContent = "";
      problem.textContent = error.message;
    }
  });
  place.replaceChildren(body);
}

function dimension(group, name, question) {
  const heading = name[0].toUpperCase() + name.slice(1);
  return element("fieldset", {},
    element("legend", {}, element("strong", {}, heading), ` ${question}`),
    element("div", { className: "scale" }, ...STEPS.map((step) => choice(group, name, step))),
  );
}

function choice(group, name, step) {
  const id = `${group}-${step}`;
  const words = { 1: " poor", 5: " good" }[step] ?? "";
  return element("label", { htmlFor: id },
    element("input", { type: "radio", id, name, value: String(step) }),
    `${step}${words}`,
  );
}

function given(form) {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, Number(value)]));
}
