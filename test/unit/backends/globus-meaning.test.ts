/** What Globus and FIRST's functions say, and what it means here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { directKey, globusCredentials } from '../../../node/backends/globus-compute/credentials.ts';
import { type EndpointFacts, endpointState, readJobs } from '../../../node/backends/globus-compute/endpoint-state.ts';
import { answerOf, packCall, pushedPieces } from '../../../node/backends/globus-compute/function-call.ts';
import { globusHosts } from '../../../node/backends/globus-compute/globus-account.ts';
import { failureOf, readReports, resultText } from '../../../node/backends/globus-compute/task-report.ts';
import { readPacked } from '../../support/globus-stand-in-packing.ts';
import { requestOf } from '../../support/globus-stand-in-requests.ts';

const ONLINE = { isOnline: true, managers: 1 };
const facts = (more: Partial<EndpointFacts>): EndpointFacts => ({ status: ONLINE, failures: 0, jobs: null, ...more });

test('the state of a model comes from the queue of its cluster, then from the nodes of its endpoint', () => {
  const jobs = readJobs(
    JSON.stringify({
      running: [
        { Models: 'a,b', 'Model Status': 'running' },
        { Models: 'c', 'Model Status': 'starting' },
      ],
      queued: [{ Models: 'd', 'Model Status': 'queued' }, { Models: 'a' }, { Models: null }, 7],
      'private-batch-running': [{ Models: 'e', 'Model Status': 'running' }],
      cluster_status: { free_nodes: -1 },
    }),
  );
  assert.equal(jobs.freeNodes, null);
  const cold = { isOnline: true, managers: 0 };
  const of = (model: string): string => endpointState(model, facts({ jobs, status: cold }));
  assert.deepEqual(['a', 'b', 'c', 'd', 'e'].map(of), ['running', 'running', 'queued', 'queued', 'cold']);
  assert.equal(endpointState('e', facts({ jobs })), 'running');
  assert.equal(endpointState('e', facts({ status: { isOnline: true, managers: null } })), 'cold');
  assert.equal(endpointState('a', facts({ jobs, status: { isOnline: false, managers: 0 } })), 'offline');
});

test('before the first answer nothing is known; a service that fails is offline at once, one that was seen after three', () => {
  assert.equal(endpointState('a', facts({ status: null })), 'unknown');
  assert.equal(endpointState('a', facts({ status: null, failures: 1 })), 'offline');
  assert.equal(endpointState('a', facts({ failures: 2 })), 'running');
  assert.equal(endpointState('a', facts({ failures: 3 })), 'offline');
});

test('what a queue function returns is refused when it is nothing of the kind', () => {
  assert.throws(() => readJobs('[]'), { code: 'upstream_error' });
  assert.throws(() => readJobs('qstat: command not found'), { code: 'upstream_error' });
  assert.deepEqual(readJobs('{}'), { models: new Map(), freeNodes: null });
});

test('tasks that have not ended go on', () => {
  const results = {
    a: { status: 'success', result: '11\n"x"' },
    b: { status: 'failed', exception: 'Traceback' },
    c: { status: 'running' },
    d: { status: 'waiting-for-ep', result: null },
    e: null,
    f: { status: 'success' },
  };
  assert.deepEqual(readReports({ response: 'batch', results }), [
    { taskId: 'a', result: '11\n"x"' },
    { taskId: 'b', exception: 'Traceback' },
    { taskId: 'f', exception: 'the result of the task is gone' },
  ]);
  assert.throws(() => readReports({ response: 'batch' }), { code: 'upstream_error' });
});

test('a result is decoded twice, and loses what the function measured', () => {
  const body = { id: 'c', choices: [], usage: { total_tokens: 3 } };
  const returned = JSON.stringify({ ...body, response_time: 1.5, throughput_tokens_per_second: 2 }, null, 4);
  const text = resultText({ taskId: 't', result: `11\n${JSON.stringify(returned)}` }, 'site');
  assert.deepEqual(JSON.parse(answerOf(text)), body);
  const object = resultText({ taskId: 't', result: `11\n${JSON.stringify(body)}` }, 'site');
  assert.deepEqual(JSON.parse(object), body, 'a function that returns the object itself is understood as well');
});

test('a traceback is told by the status that it holds', () => {
  const traceback = (status: number, text: string): string =>
    `Traceback (most recent call last):\n  File "x.py", line 1\nException: Unexpected error of type Exception: API request failed with status code: ${status}\nResponse text: ${text}\nResponse headers: {'server': 'uvicorn'}\nResponse time: 0.02\n`;
  const said = (status: number, message: string) => {
    const { code, facts: more, message: text } = failureOf(traceback(status, JSON.stringify({ message })), 'site');
    return [code, more.httpStatus, text];
  };
  assert.deepEqual(said(400, 'bad temperature'), ['invalid_request', 400, 'site answered 400: bad temperature']);
  assert.deepEqual(said(404, 'The model `x` does not exist.')[0], 'model_not_loaded');
  assert.deepEqual(said(429, 'slow down')[0], 'rate_limited');
  assert.deepEqual(said(503, 'busy')[0], 'upstream_error');
  const once = failureOf(
    'API request failed with status code: 400\\nResponse text: {"message":"x"}\\nResponse headers: {}',
    's',
  );
  assert.deepEqual(
    [once.code, once.message],
    ['invalid_request', 's answered 400: x'],
    'also where newlines were escaped',
  );
  const plain = failureOf('Exception: Network error occurred: Connection refused', 'site');
  assert.deepEqual(
    [plain.code, plain.message],
    ['upstream_error', 'site: its model server did not answer the function'],
  );
  const other = failureOf(
    'Traceback\n  prompt = "secret"\nparsl.errors.ManagerLost: Task failure due to loss of secret',
    's',
  );
  assert.deepEqual(
    [other.code, other.message],
    ['upstream_error', 's: its function failed (parsl.errors.ManagerLost)'],
  );
  assert.equal(failureOf('secret words only', 's').message, 's: its function failed');
});

test('a request to be streamed tells the function where to push, and one that is not asks for no stream', () => {
  const request = requestOf('chat', { stream: true, messages: [], seed: 7 });
  const called = { model: 'm', apiPort: 8001 };
  const paramsOf = (push: Parameters<typeof packCall>[2]): unknown =>
    (readPacked(packCall(request, called, push)).args[0] as { model_params: unknown }).model_params;
  const whole = { messages: [], seed: 7, openai_endpoint: 'chat/completions', api_port: 8001, model: 'm' };
  assert.deepEqual(paramsOf(null), whole);
  assert.deepEqual(paramsOf({ url: 'https://node.example', taskId: 't', token: 'k' }), {
    ...whole,
    stream: true,
    streaming_server_host: 'node.example',
    streaming_server_port: 443,
    streaming_server_protocol: 'https',
    stream_task_id: 't',
    stream_task_token: 'k',
  });
  assert.deepEqual(pushedPieces('{"streaming": true, "total_chunks": 4}'), 4);
  assert.deepEqual(pushedPieces('{"choices":[]}'), null);
  assert.throws(() => packCall(requestOf('rerank', {}), called, null), { code: 'invalid_request' });
});

test('credentials are looked for in the store, then in the variables of the fixture, of Globus and of FIRST', () => {
  const globus = { endpointUuid: 'e', functionUuid: 'f', apiPort: 1 };
  const named = { ...globus, clientIdEnvName: 'MY_ID', clientSecretEnvName: 'MY_SECRET' };
  const env = {
    ...{ MY_ID: 'mine', MY_SECRET: '1', GLOBUS_COMPUTE_CLIENT_ID: 'globus', GLOBUS_COMPUTE_CLIENT_SECRET: '2' },
    ...{ SERVICE_ACCOUNT_ID: 'first', SERVICE_ACCOUNT_SECRET: '3' },
  };
  const kept = new Map([['globus/sophia', '{"id":"own","secret":"s"}']]);
  const secret = (name: string): string | null => kept.get(name) ?? null;
  const idOf = (cluster: string, place: typeof globus, variables: Record<string, string>): string | undefined =>
    globusCredentials({ cluster, globus: place }, { secret, env: variables })?.id;
  assert.equal(idOf('sophia', named, env), 'own');
  assert.equal(idOf('polaris', named, env), 'mine');
  assert.equal(idOf('polaris', globus, env), 'globus');
  assert.equal(idOf('polaris', globus, { SERVICE_ACCOUNT_ID: 'first', SERVICE_ACCOUNT_SECRET: '3' }), 'first');
  assert.equal(idOf('polaris', globus, { SERVICE_ACCOUNT_ID: 'first' }), undefined);
  kept.set('globus/default', '{"id":"all","secret":"s"}');
  assert.equal(idOf('polaris', named, env), 'all');
  const direct = { apiUrl: 'https://h/v1', apiKeyEnvName: 'KEY', timeoutMs: 1, boundary: 'public' } as const;
  assert.equal(directKey({ slug: 's', direct }, { secret, env: { KEY: 'of-env' } }), 'of-env');
  assert.equal(directKey({ slug: 's', direct }, { secret, env: {} }), null);
  kept.set('direct/s', 'of-store');
  assert.equal(directKey({ slug: 's', direct }, { secret, env: { KEY: 'of-env' } }), 'of-store');
});

test('another place of Globus must be https, or on this machine', () => {
  const at = (url: string): string => globusHosts({ GLOBUS_SDK_SERVICE_URL_COMPUTE: url }).computeUrl;
  assert.equal(at(''), 'https://compute.api.globus.org');
  assert.equal(at('https://compute.example/'), 'https://compute.example');
  assert.equal(at('http://127.0.0.1:8000'), 'http://127.0.0.1:8000');
  for (const url of ['http://compute.example', 'ftp://127.0.0.1', 'no url']) {
    assert.throws(() => at(url), { code: 'invalid_request', message: /GLOBUS_SDK_SERVICE_URL_COMPUTE/ });
  }
});
