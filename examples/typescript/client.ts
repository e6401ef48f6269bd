// A small client of the BFL FLUX API for node 20 and later, without a dependency: submit, wait, download, webhooks.
// It keeps three rules: an unanswered submit is not repeated, only BFL's hosts or the chosen base receive the key,
// and a download counts as an image only if its bytes are one.

import { createHmac, timingSafeEqual } from 'node:crypto';

export interface Options {
  prompt: string;
  width?: number;
  height?: number;
  seed?: number;
  steps?: number;
  guidance?: number;
  aspect_ratio?: string;
  output_format?: 'jpeg' | 'png' | 'webp';
  safety_tolerance?: number;
  /** A URL, or base64. */
  input_image?: string;
  webhook_url?: string;
  webhook_secret?: string;
  /** Options that are newer than this file. */
  [name: string]: unknown;
}

/** What the service returns for a request: it can be stored, and waited for in another process. */
export interface Task {
  id: string;
  pollingUrl: string;
  cost?: number;
}

export interface Status {
  id: string;
  status: string;
  sample?: string;
  seed?: number;
  cost?: number;
  details?: unknown;
}

export interface Image {
  data: Uint8Array;
  type: string;
  status: Status;
}

/** The service answered with an error status. */
export class APIStatusError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
    this.name = 'APIStatusError';
  }
}

/** The service could not be reached: nothing was sent, and it is safe to submit again. */
export class ConnectionFailedError extends Error {
  override name = 'ConnectionFailedError';
}

/** A submit left and was not answered: it may have been charged, and is not repeated. */
export class InDoubtError extends Error {
  override name = 'InDoubtError';
}

/** The task ended without an image; `status` is "Error", "Request Moderated" and the like. */
export class TaskFailedError extends Error {
  constructor(readonly task: Task, readonly status: string, readonly details: unknown) {
    super(`The task ${task.id} ended as ${status}: ${JSON.stringify(details ?? null)}`);
    this.name = 'TaskFailedError';
  }
}

/** The timeout passed; the task continues, and can be waited for again. */
export class TaskTimeoutError extends Error {
  constructor(readonly task: Task) {
    super(`The task ${task.id} is not ready yet; wait for it again.`);
    this.name = 'TaskTimeoutError';
  }
}

const FAILED = new Set(['Error', 'Failed', 'Request Moderated', 'Content Moderated', 'Task not found']);
const NEVER_LEFT = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'UND_ERR_CONNECT_TIMEOUT']);
const GRACE = 10_000; // just after a submit the service may answer "Task not found"
const REFUSALS = 5;

export class Client {
  readonly #key: string;
  readonly #base: URL;
  readonly #timeout: number;

  /** `timeout` is in milliseconds, for each method as a whole. */
  constructor({ apiKey = process.env['BFL_API_KEY'] ?? '', baseUrl = process.env['BFL_BASE_URL'], timeout = 600_000 }:
    { apiKey?: string; baseUrl?: string | undefined; timeout?: number } = {}) {
    if (!apiKey) throw new Error('Set BFL_API_KEY; create a key at https://dashboard.bfl.ai/get-started');
    this.#key = apiKey;
    this.#base = new URL(baseUrl || 'https://api.bfl.ai');
    this.#timeout = timeout;
  }

  /** Submit, wait and download: one paid image. */
  async generate(model: string, options: Options): Promise<Image> {
    return this.download(await this.wait(await this.submit(model, options)));
  }

  /** Ask for one image. A refusal that names a pause is repeated; what left and was not answered is not. */
  async submit(model: string, options: Options): Promise<Task> {
    const url = new URL(`/v1/${model}`, this.#base);
    const headers = { 'content-type': 'application/json', 'x-key': this.#key };
    for (let refusals = 1; ; refusals++) {
      let answer: Response;
      try {
        answer = await this.#fetch(url, { method: 'POST', headers, body: JSON.stringify(options) });
      } catch (loss) {
        if (NEVER_LEFT.has(reason(loss))) throw new ConnectionFailedError(`${url.host} could not be reached (${reason(loss)}).`);
        throw new InDoubtError(`The submit left and may have been charged; look at your usage first (${reason(loss)}).`);
      }
      const pause = Number(answer.headers.get('retry-after'));
      if ([429, 503].includes(answer.status) && pause > 0 && pause <= 120 && refusals < REFUSALS) {
        await answer.body?.cancel();
        await sleep(pause * 1000);
        continue;
      }
      if (answer.status >= 500) throw new InDoubtError(`The service answered ${answer.status} to a submit; it may have been charged.`);
      const body = await answer.json().catch(() => undefined) as Record<string, unknown> | undefined;
      if (!answer.ok) throw new APIStatusError(answer.status, `The service answered ${answer.status}: ${complaint(body)}`);
      if (typeof body?.['id'] !== 'string') throw new InDoubtError('The submit was accepted, but its answer names no task.');
      const pollingUrl = body['polling_url'] ?? new URL(`/v1/get_result?id=${encodeURIComponent(body['id'])}`, this.#base).href;
      return { id: body['id'], pollingUrl: String(pollingUrl), ...(typeof body['cost'] === 'number' && { cost: body['cost'] }) };
    }
  }

  /** Poll until the task is ready. A poll that fails costs nothing, and is repeated. */
  async wait(task: Task): Promise<Status> {
    const url = new URL(task.pollingUrl);
    if (!this.#mayCarryKey(url)) throw new Error(`The polling URL is on ${url.host}, which must not see the key.`);
    const began = Date.now();
    for (let pause = 200; Date.now() - began < this.#timeout; pause = Math.min(2000, pause * 1.5)) {
      const status = await this.#poll(url, task.id);
      if (status?.status === 'Ready' && status.sample) return status;
      const isEarly = status?.status === 'Task not found' && Date.now() - began < GRACE;
      if (status && FAILED.has(status.status) && !isEarly) throw new TaskFailedError(task, status.status, status.details);
      await sleep(pause);
    }
    throw new TaskTimeoutError(task);
  }

  /** Fetch the image of a ready task, within the ten minutes that its link lives; the key is not sent. */
  async download(status: Status): Promise<Image> {
    const url = new URL(status.sample ?? '');
    if (url.protocol !== 'https:' && url.origin !== this.#base.origin) throw new Error(`${url.protocol} is not allowed for downloads.`);
    let last = '';
    for (let tries = 1; tries <= REFUSALS; tries++) {
      try {
        const answer = await this.#fetch(url, { redirect: 'follow' });
        const data = new Uint8Array(await answer.arrayBuffer());
        const type = answer.ok ? kind(data) : undefined;
        if (type) return { data, type, status };
        last = `answered ${answer.status} with ${answer.headers.get('content-type')}`;
      } catch (loss) {
        last = reason(loss);
      }
      await sleep(500 * tries);
    }
    throw new Error(`The image of ${status.id} could not be downloaded: ${last}.`);
  }

  async #poll(url: URL, id: string): Promise<Status | undefined> {
    try {
      const answer = await this.#fetch(url, { headers: { 'x-key': this.#key } });
      // The body is read before the HTTP status is judged: failed tasks poll as 404, 422 or 500 as well.
      return readStatus(await answer.json(), id);
    } catch {
      return undefined;
    }
  }

  #fetch(url: URL, init: RequestInit): Promise<Response> {
    // fetch would send x-key along a redirect to any host.
    return fetch(url, { redirect: 'manual', signal: AbortSignal.timeout(60_000), ...init });
  }

  #mayCarryKey(url: URL): boolean {
    if (url.username || url.password) return false;
    const isHome = (one: URL) => one.protocol === 'https:' && one.port === '' && one.hostname.endsWith('.bfl.ai');
    return url.origin === this.#base.origin || (isHome(url) && isHome(this.#base));
  }
}

/** Whether the headers prove that the owner of the secret sent exactly this body; pass the raw bytes. */
export function verifyWebhook(body: Uint8Array, headers: Record<string, string | string[] | undefined>, secret: string): boolean {
  const given = Object.entries(headers).find(([name]) => name.toLowerCase() === 'x-bfl-signature')?.[1];
  if (typeof given !== 'string' || !secret) return false;
  const expected = Buffer.from(`sha256=${createHmac('sha256', secret).update(body).digest('hex')}`);
  const signature = Buffer.from(given.trim());
  return signature.length === expected.length && timingSafeEqual(signature, expected);
}

/** Read a verified webhook, in either of the two known shapes; it is a hint, so wait for its task before you act. */
export function readWebhook(body: Uint8Array): Status {
  const fields = JSON.parse(new TextDecoder().decode(body)) as Record<string, unknown>;
  const id = fields['id'] ?? fields['task_id'];
  if (typeof id !== 'string' || !id) throw new Error('The webhook names no task.');
  const words: Record<string, string> = { SUCCESS: 'Ready', FAILED: 'Failed' };
  const word = String(fields['status'] ?? '');
  const status = readStatus({ ...fields, status: words[word] ?? word }, id);
  if (!status) throw new Error('The webhook names no status.');
  return status;
}

function readStatus(body: unknown, id: string): Status | undefined {
  if (typeof body !== 'object' || body === null) return undefined;
  const fields = body as Record<string, unknown>;
  if (typeof fields['status'] !== 'string' || !fields['status']) return undefined;
  const result = (typeof fields['result'] === 'object' && fields['result'] !== null ? fields['result'] : {}) as Record<string, unknown>;
  const details = fields['details'] ?? fields['error'] ?? fields['message'];
  return {
    id,
    status: fields['status'],
    ...(typeof result['sample'] === 'string' && { sample: result['sample'] }),
    ...(typeof result['seed'] === 'number' && { seed: result['seed'] }),
    ...(typeof fields['cost'] === 'number' && { cost: fields['cost'] }),
    ...(details != null && { details }),
  };
}

/** The type by the first bytes: an HTML page is not an image, whatever its headers say. */
function kind(data: Uint8Array): string | undefined {
  const head = Buffer.from(data.subarray(0, 12)).toString('latin1');
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png';
  if (head.startsWith('\xff\xd8\xff')) return 'image/jpeg';
  return head.startsWith('RIFF') && head.endsWith('WEBP') ? 'image/webp' : undefined;
}

function complaint(body: Record<string, unknown> | undefined): string {
  const message = body?.['detail'] ?? body?.['message'] ?? body?.['error'] ?? body;
  return typeof message === 'string' ? message : JSON.stringify(message ?? null);
}

// The cause of a failed fetch, without the URL that some causes repeat.
function reason(loss: unknown): string {
  const cause = (loss as { cause?: { code?: string } }).cause;
  return cause?.code ?? (loss as Error).name;
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, milliseconds));
}
