/** One look at an HTTP node, as its owner registers or tests it: does it answer, and with which models? */

/** What was found, in one line for people. */
export interface NodeProbe {
  readonly ok: boolean;
  readonly detail: string;
  /** Ids, at most 1,000. */
  readonly models: readonly string[];
}

const TIMEOUT_MS = 5_000;
const MAX_BODY_BYTES = 4 * 1024 * 1024;
const MAX_MODELS = 1_000;

/** Asks `<baseUrl>/v1/models`, once and for 5 s at most. Never throws; the key goes into the header only. */
export async function probeHttpNode(baseUrl: string, key: string | null): Promise<NodeProbe> {
  const failed = (detail: string): NodeProbe => ({ ok: false, detail, models: [] });
  try {
    const response = await fetch(`${baseUrl}/v1/models`, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
      redirect: 'manual',
      headers: { accept: 'application/json', ...(key !== null && { authorization: `Bearer ${key}` }) },
    });
    const body = await boundedText(response);
    const problem = problemOf(response.status, key !== null);
    if (problem !== null) return failed(problem);
    const models = body === null ? null : modelIds(body);
    if (models === null) return failed('it answers, but its /v1/models is no list of models: is the URL right?');
    return { ok: true, detail: `it answers with ${models.length} model${models.length === 1 ? '' : 's'}`, models };
  } catch (error) {
    return failed(reasonOf(error));
  }
}

function problemOf(status: number, hadKey: boolean): string | null {
  if (status === 401 || status === 403)
    return hadKey ? `it refuses the key (${status})` : `it wants a key (${status}): give one with --key-stdin`;
  if (status === 404) return 'it answers, but has no /v1/models (404): is the URL right?';
  if (status >= 300 && status < 400) return `it sends elsewhere (${status}): register the URL that it sends to`;
  return status === 200 ? null : `it answers with status ${status}`;
}

/** The body as text, or null when it is too long. */
async function boundedText(response: Response): Promise<string | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_BODY_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function modelIds(body: string): readonly string[] | null {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return null;
  }
  if (typeof json !== 'object' || json === null || !('data' in json) || !Array.isArray(json.data)) return null;
  const ids = (json.data as unknown[]).map((model) => (model as { id?: unknown } | null)?.id);
  return ids.filter((id) => typeof id === 'string').slice(0, MAX_MODELS);
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && error.name === 'TimeoutError') return `it did not answer within ${TIMEOUT_MS / 1000} s`;
  const cause = (error as { cause?: { code?: unknown } } | null)?.cause?.code;
  if (cause === 'ECONNREFUSED') return 'nothing listens there (connection refused)';
  if (cause === 'ENOTFOUND' || cause === 'EAI_AGAIN') return 'its name cannot be resolved';
  return `it cannot be reached (${typeof cause === 'string' ? cause : 'connection failed'})`;
}
