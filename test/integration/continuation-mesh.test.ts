/** Real nodes in processes of their own, over the real wire: the one that answers dies, and its client reads on. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NodeProcess, signalQuietly } from '../support/node-process.ts';
import { scriptedAnswer } from '../support/scripted-engine.ts';

const BIN = path.resolve(import.meta.dirname, '../support/scripted-node-main.ts');
const LOOPBACK = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];
const MODEL = 'm';
const SEED = 41;
/** A second or two of answer: a death can be put into it. */
const COUNT = 60;
const DELAY_MS = '25';

interface Member {
  readonly process: NodeProcess;
  readonly api: string;
  readonly fingerprint: string;
  readonly pid: number;
  readonly address: string;
}

async function startMember(flags: readonly string[], env: Record<string, string>): Promise<Member> {
  const process = new NodeProcess({ bin: BIN, flags: [...LOOPBACK, ...flags], env });
  const { api, fingerprint, pid, multiaddrs } = await process.ready();
  return { process, api, fingerprint, pid, address: multiaddrs[0] ?? '' };
}

const startTwin = (): Promise<Member> =>
  startMember([], { SCRIPTED_MODELS: MODEL, SCRIPTED_DELAY_MS: DELAY_MS, SCRIPTED_TEXT_LAG: '1' });

/** What a client reads: parsed events of an SSE answer as they come, with the head of the answer. */
class Reading {
  readonly response: Response;
  readonly events: Record<string, unknown>[] = [];
  text = '';
  isDone = false;
  readonly #lines: AsyncGenerator<string>;

  constructor(response: Response) {
    this.response = response;
    this.#lines = dataOf(response);
  }

  /** Reads on until `count` events with text came, or to the end. */
  async read(count = Number.POSITIVE_INFINITY): Promise<void> {
    let seen = 0;
    while (seen < count) {
      const { value, done } = await this.#lines.next();
      if (done === true) return;
      if (value === '[DONE]') {
        this.isDone = true;
        continue;
      }
      const event = JSON.parse(value) as { choices?: { delta?: { content?: string } }[] } & Record<string, unknown>;
      this.events.push(event);
      const text = event.choices?.[0]?.delta?.content ?? '';
      this.text += text;
      if (text !== '') seen += 1;
    }
  }
}

async function* dataOf(response: Response): AsyncGenerator<string> {
  assert.ok(response.body !== null);
  let rest = '';
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    rest += decoder.decode(bytes as Uint8Array, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.startsWith('data: ')) yield line.slice(6);
  }
}

const ask = (
  { api }: Member,
  { signal, ...more }: { signal?: AbortSignal; [field: string]: unknown } = {},
): Promise<Response> =>
  fetch(`${api}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: MODEL,
      stream: true,
      stream_options: { include_usage: true },
      max_tokens: COUNT,
      seed: SEED,
      messages: [{ role: 'user', content: 'go on' }],
      ...(more['stream'] === false ? { stream_options: undefined } : {}),
      ...more,
    }),
    ...(signal === undefined ? {} : { signal }),
  });

describe('continuation between nodes', () => {
  let asking: Member;
  let twins: Member[] = [];

  const servingOf = ({ response }: Reading): Member => {
    const found = twins.find(({ fingerprint }) => fingerprint === response.headers.get('x-meshnode-node'));
    assert.ok(found !== undefined, 'a twin serves it');
    return found;
  };
  const lose = async (twin: Member): Promise<void> => {
    twins = twins.filter((one) => one !== twin);
    await twin.process.kill();
  };
  /** `node` sees all of these, from its event number `from` on. */
  const sees = (node: Member, members: readonly Member[], from = 0): Promise<unknown> =>
    Promise.all(
      members.map(({ fingerprint }) =>
        node.process.event((event) => event.event === 'peer_up' && event.fingerprint === fingerprint, from),
      ),
    );

  before(async () => {
    twins = await Promise.all([startTwin(), startTwin(), startTwin(), startTwin()]);
    const peers = twins.flatMap(({ address }) => ['--peer', address]);
    asking = await startMember(peers, { SCRIPTED_MODELS: '' });
    await sees(asking, twins);
  });
  after(() => Promise.all([asking, ...twins].map(({ process }) => process.kill())));

  it('a client reads the whole answer although two of those that gave it were killed', async () => {
    const reading = new Reading(await ask(asking));
    await reading.read(10);
    await lose(servingOf(reading));
    await reading.read(15);
    const load = await Promise.all(twins.map((twin) => inFlight(twin)));
    const second = twins[load.indexOf(1)];
    assert.ok(second !== undefined, `one of them goes on: ${load}`);
    await lose(second);
    await reading.read();
    assert.equal(reading.text, scriptedAnswer(SEED, COUNT));
    assert.ok(reading.isDone);
    const ids = new Set(reading.events.map((event) => event['id']));
    assert.equal(ids.size, 1, 'one answer, one id');
    const usages = reading.events
      .map((event) => event['usage'])
      .filter((usage) => usage !== undefined && usage !== null);
    assert.equal(usages.length, 1);
    assert.equal((usages[0] as { completion_tokens: number }).completion_tokens, COUNT);
    const said = reading.events.map((event) => event['x_meshnode']).find((about) => about !== undefined);
    assert.deepEqual((said as { resumed: number }).resumed, 2);
    assert.equal((said as { nodes: string[] }).nodes.length, 3);
  });

  it('one that is stopped is as good as dead after two seconds, and the answer goes on', async () => {
    const reading = new Reading(await ask(asking));
    await reading.read(10);
    const stopped = servingOf(reading);
    const before = asking.process.events.length;
    signalQuietly(stopped.pid, 'SIGSTOP');
    await reading.read();
    assert.deepEqual([reading.text, reading.isDone], [scriptedAnswer(SEED, COUNT), true]);
    signalQuietly(stopped.pid, 'SIGCONT');
    await until(async () => (await inFlight(stopped)) === 0, 'what was given up stops there');
    await sees(asking, [stopped], before);
  });

  it('a client that goes away after a death leaves nobody at work', async () => {
    const client = new AbortController();
    const reading = new Reading(await ask(asking, { signal: client.signal }));
    await reading.read(5);
    await lose(servingOf(reading));
    await reading.read(5);
    client.abort();
    await until(async () => (await Promise.all(twins.map(inFlight))).every((count) => count === 0), 'all slots free');
  });

  it('an asking node that is killed leaves nobody at work', async () => {
    const other = await startMember(
      twins.flatMap(({ address }) => ['--peer', address]),
      { SCRIPTED_MODELS: '' },
    );
    await sees(other, twins);
    const reading = new Reading(await ask(other));
    await reading.read(5);
    await other.process.kill();
    await assert.rejects(reading.read());
    await until(async () => (await Promise.all(twins.map(inFlight))).every((count) => count === 0), 'all slots free');
  });

  it('without a twin left the client gets one error and no [DONE]; whole answers are never cut', async () => {
    assert.equal(twins.length, 1);
    const [last] = twins;
    assert.ok(last !== undefined);
    const whole = ask(asking, { stream: false });
    const reading = new Reading(await ask(asking));
    await reading.read(10);
    await lose(last);
    await reading.read();
    assert.equal(scriptedAnswer(SEED, COUNT).startsWith(reading.text), true);
    assert.equal(reading.isDone, false);
    const error = reading.events.at(-1)?.['error'] as { code: string } | undefined;
    assert.equal(error?.code, 'peer_lost');
    assert.ok(reading.events.every((event) => finishOf(event) === null));
    const response = await whole;
    assert.ok(response.status >= 500, `${response.status}`);
    assert.ok('error' in ((await response.json()) as object));
  });
});

async function inFlight({ api }: Member): Promise<number> {
  const text = await (await fetch(`${api}/metrics`)).text();
  return Number(/^meshnode_inbound_requests (\d+)/m.exec(text)?.[1] ?? Number.NaN);
}

function finishOf(event: Record<string, unknown>): unknown {
  const choices = event['choices'] as { finish_reason?: unknown }[] | undefined;
  return choices?.[0]?.finish_reason ?? null;
}

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  const endsAt = performance.now() + 15_000;
  while (!(await condition())) {
    assert.ok(performance.now() < endsAt, `it never came that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
