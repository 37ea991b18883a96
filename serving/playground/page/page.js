/**
 * The page: key, post, draft, reply, improvement, rating.
 *
 * All state is in these modules and in the fields, and ends with the page: nothing is written to
 * storage, cookies, history or the address, and leaving empties the fields, so that neither "back"
 * nor a restored tab brings a post up again.
 */

import { byId, fault, show } from "./dom.js";
import { dropKey, listenForKey } from "./key.js";
import { ask } from "./service.js";
import { datedRisk, hideRisk, showRisk } from "./risk.js";
import { showChanges, summary } from "./changes.js";
import { offerRating } from "./rating.js";
import { done, isWorking, stop, work } from "./work.js";

const SETTINGS = { needs_key: true, max_chars: 20000, resources: [], ratings: true };
const UNFINISHED = "The text was cut off at its longest: finish it yourself.";
const POST_CUT = "The post is longer than the model reads: its middle was left out.";

let before = null; // the reply before it was replaced
let suggested = ""; // the revision that is on show
let about = ""; // the post that reply, risk and revision are about

const onSubmit = (action) => (event) => {
  event.preventDefault();
  if (!isWorking()) action();
};

// --- draft and improvement

async function writeDraft() {
  const post = thePost();
  if (!post) return;
  const another = about !== "" && about !== JSON.stringify(post);
  const answer = await work("post", "Writing a draft", "/v1/generate", { post });
  if (!answer) return;
  const draft = answer.drafts?.[0];
  const level = assessed(post, answer);
  byId("rate-draft").replaceChildren();
  if (draft?.text) {
    replaceReply(draft.text);
    show(byId("draft-note"), notes(answer));
    rate("draft", answer.request_id);
  } else if (another) {
    replaceReply(""); // what stood there answers another post
  }
  done("post", draft?.text ? "A draft is in the reply below." : refused(answer, "draft"), level === "none" ? "reply" : "risk-heading");
}

async function improve() {
  const post = thePost();
  if (!post) return;
  const field = byId("reply");
  const draft = field.value;
  fault(field, draft.trim() ? tooLong(draft) : "Write a reply first, or ask for a draft.");
  if (!draft.trim() || tooLong(draft)) return;
  byId("revision").hidden = true;
  const answer = await work("reply", "Looking for improvements", "/v1/improve", { post, draft });
  if (!answer) return;
  const level = assessed(post, answer);
  if (answer.revision) {
    suggested = answer.revision;
    byId("revision-summary").textContent = `${summary(answer)} ${notes(answer)}`;
    showChanges(byId("changes"), answer.edits);
    byId("revision").hidden = false;
    rate("revision", answer.request_id);
  }
  done("reply", answer.revision ? "Suggested changes are below." : refused(answer, "revision"),
    answer.revision && level !== "acute" ? "revision-heading" : "risk-heading");
}

/** Shows the risk that the answer speaks of; returns its level. */
function assessed(post, answer) {
  about = JSON.stringify(post);
  return showRisk(answer, SETTINGS.resources);
}

/** The post was changed since: what is said about risk is said about the text before. */
function postChanged() {
  datedRisk(about !== "" && about !== JSON.stringify({ title: byId("title").value, text: byId("text").value }));
}

/** The post's fields as the service takes them, or nothing where they cannot be sent. */
function thePost() {
  const [title, text] = [byId("title").value, byId("text").value];
  const field = byId("text");
  const problem = (title + text).trim() ? tooLong(title + text) : "Paste the post first.";
  fault(field, problem);
  return problem ? null : { title, text };
}

const tooLong = (text) =>
  [...text].length > SETTINGS.max_chars
    ? `This has ${[...text].length} characters; at most ${SETTINGS.max_chars} are taken. Shorten it.` : "";

/** What a reader must know of a text that is not whole, or not written from the whole post. */
const notes = ({ finish_reason: reason, post_cut: cut }) =>
  [reason === "length" ? UNFINISHED : "", cut ? POST_CUT : ""].filter(Boolean).join(" ");

/** Why there is no text. */
function refused({ refusal, risk }, what) {
  if (risk.level === "acute") return `No ${what} was given, because of the risk. What to do stands below.`;
  if (!refusal) return `No ${what} was given.`;
  const rules = refusal.rules?.length ? ` Rules that it would have broken: ${refusal.rules.join(", ")}.` : "";
  return `No ${what} was given. The service says: ${refusal.message}.${rules}`;
}

// --- the reply

function replaceReply(text) {
  const field = byId("reply");
  before = field.value;
  field.value = text;
  fault(field);
  show(byId("draft-note"), "");
  byId("reply-status").textContent = "";
  byId("undo").hidden = !before.trim();
  byId("revision").hidden = true;
}

function undo() {
  const field = byId("reply");
  [field.value, before] = [before, field.value];
  byId("reply-status").textContent = "The text before is back.";
  field.focus();
}

function takeChanges() {
  replaceReply(suggested);
  byId("reply-status").textContent = "The changes are in your reply.";
  byId("reply").focus();
}

function leaveChanges() {
  byId("revision").hidden = true;
  byId("reply-status").textContent = "Your reply is as it was.";
  byId("reply").focus();
}

async function copy() {
  const field = byId("reply");
  try {
    await navigator.clipboard.writeText(field.value);
    byId("reply-status").textContent = "The reply was copied.";
  } catch { // no clipboard without HTTPS, or not allowed
    field.focus();
    field.select();
    byId("reply-status").textContent = "The reply is selected: copy it with Ctrl+C or Command+C.";
  }
}

// --- ratings

function rate(what, requestId) {
  if (!SETTINGS.ratings) return;
  const send = (request_id, ratings) => ask("/v1/feedback", { request_id, ratings });
  offerRating(byId(`rate-${what}`), requestId, what, send);
}

// --- the end

function startOver() {
  stop();
  forgetTexts();
  byId("text").focus();
}

function forgetTexts() {
  for (const id of ["title", "text", "reply"]) byId(id).value = "";
  for (const id of ["text", "reply"]) fault(byId(id));
  for (const id of ["post-status", "reply-status", "revision-summary", "changes"]) byId(id).textContent = "";
  for (const id of ["rate-draft", "rate-revision"]) byId(id).replaceChildren();
  show(byId("draft-note"), "");
  byId("revision").hidden = byId("undo").hidden = true;
  hideRisk();
  before = null;
  suggested = about = "";
}

function forgetAll() {
  stop();
  forgetTexts();
  dropKey();
}

// --- the beginning

function listen() {
  listenForKey();
  byId("post-form").addEventListener("submit", onSubmit(writeDraft));
  byId("reply-form").addEventListener("submit", onSubmit(improve));
  for (const [id, action] of Object.entries({
    clear: startOver, undo, copy, take: takeChanges, leave: leaveChanges, "post-stop": stop, "reply-stop": stop,
  })) byId(id).addEventListener("click", action);
  for (const id of ["title", "text"]) byId(id).addEventListener("input", postChanged);
  document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
  window.addEventListener("pagehide", forgetAll);
  window.addEventListener("beforeunload", (event) => byId("reply").value.trim() && event.preventDefault());
}

async function configure() {
  try {
    const answer = await fetch("playground/settings.json", { credentials: "omit" });
    if (!answer.ok) throw new Error(`settings: ${answer.status}`);
    Object.assign(SETTINGS, await answer.json());
  } catch {
    byId("text-problem").textContent = "The service could not be reached. Reload this page in a moment.";
  }
  byId("key-section").hidden = !SETTINGS.needs_key;
}

listen();
await configure();
