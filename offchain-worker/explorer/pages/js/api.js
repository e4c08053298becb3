// @ts-check
// The server's answers.

/** What the server said, where it refused. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * Asks the server.
 * @param {string} path
 * @param {Record<string, string | number | boolean | undefined>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function ask(path, query = {}, signal) {
  const url = new URL(`/v1/${path}`, location.origin);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
  let response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "offline", "");
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Refused(response.status, body.error?.code ?? "error", body.error?.message ?? `HTTP ${response.status}`);
  }
  return response.json();
}

/**
 * Listens to what is new, and goes on listening.
 * @param {(news: any) => void} told
 * @param {(listening: boolean) => void} state
 */
export function listen(told, state) {
  const source = new EventSource("/v1/live");
  source.addEventListener("news", (event) => told(JSON.parse(event.data)));
  source.addEventListener("open", () => state(true));
  source.addEventListener("error", () => state(false));
  addEventListener("pagehide", () => source.close());
}
