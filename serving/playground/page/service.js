/**
 * Asking the service: the key, waiting when it is busy, and errors in plain words.
 *
 * The key lives in this module's memory and nowhere else.
 */

const TRIES = 3;
const LONGEST_WAIT_S = 30;
const USUAL_WAIT_S = 2;

let key = "";

export const holdKey = (given) => void (key = given);
export const forgetKey = () => void (key = "");
export const hasKey = () => key !== "";

/** What a person is told; `status` 0 means that no answer came, `field` names what to correct. */
export class ServiceError extends Error {
  constructor(message, { status = 0, field = null, again = false } = {}) {
    super(message);
    Object.assign(this, { status, field, again });
  }
}

/**
 * The answer to `body` at `path`, as JSON.
 *
 * A busy service (429, 503) is asked again after the time that it names, `TRIES` times in all;
 * `onWait(seconds, status)` is told before each wait. Aborting `signal` ends the request on the
 * service, too, and throws AbortError. Everything else throws ServiceError.
 */
export async function ask(path, body, { signal, onWait = () => {} } = {}) {
  for (let left = TRIES - 1; ; left -= 1) {
    const response = await sent(path, body, signal);
    if (response.ok) return answered(response);
    const wait = retryAfter(response);
    if (![429, 503].includes(response.status) || left === 0 || wait > LONGEST_WAIT_S) {
      throw await plainly(response, wait);
    }
    onWait(wait, response.status);
    await pause(wait, signal);
  }
}

async function sent(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const method = "POST";
  try {
    return await fetch(path, {
      method, headers, body: JSON.stringify(body), signal,
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service could not be reached. Check your connection, then try again.", { again: true });
  }
}

async function answered(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The answer broke off. Try again.", { status: response.status, again: true });
  }
}

/** Seconds that the answer asks to wait. */
function retryAfter(response) {
  const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return Number.isFinite(seconds) && seconds >= 0 ? Math.ceil(seconds) : USUAL_WAIT_S;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}

/** The error in words for the person at the page; what the service says is added where it helps to act. */
async function plainly(response, wait) {
  const status = response.status;
  const { message = "", param = null } = await detail(response);
  const told = (text, more = {}) => new ServiceError(text, { status, ...more });
  switch (status) {
    case 401:
      return told(hasKey()
        ? "This key was not accepted. It may be mistyped, expired or withdrawn: enter it again, or ask the people who run this service for a new one."
        : "A key is needed. Enter yours, or ask the people who run this service for one.", { field: "key" });
    case 403:
      return told(`This key may not do that. Ask the people who run this service for one that may.${quoted(message)}`);
    case 413:
      return told("That is too long for this service. Shorten it and try again.", { field: param ?? "post" });
    case 429:
      return told(`That was more than this key may ask for just now. Wait ${duration(wait)}, then try again.`, { again: true });
    case 400:
    case 422:
      return told(`The service cannot work with this.${quoted(message)}`, { field: param });
    case 404:
      return told(`The service does not know this, or does not offer it.${quoted(message)}`);
    case 503:
      return told(`The service is busy or restarting. Wait ${duration(wait)}, then try again.`, { again: true });
    case 504:
      return told("The answer took too long and was given up. Try again, perhaps with a shorter text.", { again: true });
    default:
      return told(`The service failed on this request (${status}). Try again; if it happens again, tell the people who run it.`, { again: true });
  }
}

async function detail(response) {
  try {
    return (await response.json()).error ?? {};
  } catch {
    return {}; // what stands before the service may answer in another form: the status says enough
  }
}

const quoted = (message) => (message ? ` It says: ${message}` : "");

export const duration = (seconds) =>
  seconds < 90 ? `${seconds} second${seconds === 1 ? "" : "s"}` : `${Math.ceil(seconds / 60)} minutes`;
