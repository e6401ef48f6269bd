// The public API of this server.  The session cookie rides along by itself; no script ever sees a key.

export class ApiError extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    this.name = "ApiError";
    // 0: no answer arrived, so nobody knows whether the request did.
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

// Whether the server is away: nothing answers, or only a proxy in front of it.  A server that closes says 503 as well.
const AWAY = [0, 502, 503, 504];
export const isAway = ({ status }) => AWAY.includes(status);

export async function call(method, path, body = undefined, headers = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new ApiError(0, "The server does not answer.");
  }
  if (!answer.ok) throw await errorOf(answer);
  try {
    return await answer.json();
  } catch {
    throw new ApiError(0, "The answer was cut off.");
  }
}

export async function fetchBlob(path, body = undefined) {
  let answer;
  try {
    const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    answer = await fetch(path, { credentials: "same-origin", ...init });
  } catch {
    throw new ApiError(0, "The server does not answer.");
  }
  if (!answer.ok) throw await errorOf(answer);
  return answer.blob();
}

async function errorOf(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // A proxy's page says less than its status.
  }
  const after = Number(answer.headers.get("retry-after"));
  return new ApiError(answer.status, messageOf(body) || `The server answered ${answer.status}.`, after || null);
}

function messageOf(body) {
  if (Array.isArray(body.detail)) {
    return body.detail.map((entry) => `${entry.loc?.slice(1).join(".") || "body"}: ${entry.msg}`).join("; ");
  }
  return body.message || (typeof body.detail === "string" ? body.detail : "");
}
