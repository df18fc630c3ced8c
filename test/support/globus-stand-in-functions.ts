/** What runs at a Globus Compute endpoint of FIRST, as its functions behave: the model server's caller, and qstat. */

/** A registered function. Returns what Python would return; throws what it would raise. */
export type RemoteFunction = (args: readonly unknown[]) => Promise<unknown>;

type Params = Record<string, unknown>;

export interface FirstFunctionOptions {
  /** The environment variable of the function's machine; absent: what FIRST publishes as its default. */
  readonly streamingSecret?: string;
  /** Lines that are pushed in one request. */
  readonly batch?: number;
  /** Of the pushes of data, counted from 0, those that get lost. */
  readonly lost?: readonly number[];
}

const PUSH_PARAMS = [
  'streaming_server_host',
  'streaming_server_port',
  'streaming_server_protocol',
  'stream_task_id',
  'stream_task_token',
];

/** Asks the model server at `http://127.0.0.1:<api_port>`; FIRST's does so by https without checking certificates. */
export function firstFunction(options: FirstFunctionOptions = {}): RemoteFunction {
  return async ([parameters]) => {
    const params = (parameters as { model_params?: Params } | undefined)?.model_params;
    if (params === undefined) throw new Error("Missing required parameter: 'model_params'");
    const { openai_endpoint: endpoint, api_port: port, ...payload } = params;
    if (typeof endpoint !== 'string') throw new Error("Missing required parameter: 'model_params.openai_endpoint'");
    if (typeof port !== 'number') throw new Error("Missing required parameter: 'model_params.api_port'");
    const url = `http://127.0.0.1:${port}/v1/${endpoint}`;
    return payload['stream'] === true ? await push(url, payload, options) : await whole(url, payload);
  };
}

/** FIRST's qstat: these jobs. */
export function qstatFunction(jobs: () => object): RemoteFunction {
  return async () => JSON.stringify(jobs(), null, 4);
}

async function ask(url: string, payload: Params): Promise<Response> {
  try {
    return await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer random_api_key' },
      body: JSON.stringify(payload),
    });
  } catch {
    throw new Error(
      'Network error occurred: HTTPSConnectionPool: Max retries exceeded (Connection refused)\nResponse time: 0.1',
    );
  }
}

async function whole(url: string, payload: Params): Promise<string> {
  const response = await ask(url, payload);
  if (response.status !== 200) throw new Error(`Unexpected error of type Exception: ${await refusal(response)}`);
  const measured = { response_time: 0.25, throughput_tokens_per_second: 12.5 };
  return JSON.stringify({ ...((await response.json()) as object), ...measured }, null, 4);
}

async function refusal(response: Response): Promise<string> {
  const text = await response.text();
  return `API request failed with status code: ${response.status}\nResponse text: ${text}\nResponse headers: {'content-type': 'application/json'}\nResponse time: 0.1`;
}

async function push(url: string, payload: Params, options: FirstFunctionOptions): Promise<string> {
  for (const name of PUSH_PARAMS) if (payload[name] === undefined) throw new Error(`Streaming requires ${name}`);
  const forModel = Object.fromEntries(Object.entries(payload).filter(([name]) => !PUSH_PARAMS.includes(name)));
  const taskId = payload['stream_task_id'];
  const report = {
    streaming: true,
    task_id: taskId,
    response_time: 0.2,
    throughput_tokens_per_second: 1,
    total_tokens: 1,
  };
  const response = await ask(url, forModel);
  if (response.status !== 200) {
    const error = await refusal(response);
    await send(payload, 'error', { error, type: 'error' }, options);
    return JSON.stringify({ ...report, status: 'error', error });
  }
  const lines = (await response.text()).split('\n').filter((line) => line.startsWith('data:'));
  const content = lines.filter((line) => line !== 'data: [DONE]');
  const { batch = 20, lost = [] } = options;
  let sent = 0;
  for (let at = 0, index = 0; at < content.length; at += batch, index += 1) {
    if (lost.includes(index)) continue;
    const data = content.slice(at, at + batch).join('\n');
    if (await send(payload, 'data', { data, type: 'data' }, options)) sent += batch;
  }
  if (content.length < lines.length) await send(payload, 'done', { type: 'done' }, options);
  return JSON.stringify({
    ...report,
    ...{ status: 'completed', total_chunks: content.length, chunks_sent_to_server: sent },
  });
}

async function send(payload: Params, what: string, body: Params, options: FirstFunctionOptions): Promise<boolean> {
  const base = `${payload['streaming_server_protocol']}://${payload['streaming_server_host']}:${payload['streaming_server_port']}`;
  const response = await fetch(`${base}/resource_server/api/streaming/${what}/`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-internal-secret': options.streamingSecret ?? 'default-secret-change-me',
      'x-stream-task-token': String(payload['stream_task_token']),
    },
    body: JSON.stringify({ task_id: payload['stream_task_id'], ...body }),
  });
  await response.arrayBuffer();
  return response.status === 200;
}
