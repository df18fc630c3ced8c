import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventData } from '../../../cli/event-stream.ts';
import { formatBytes, formatDuration, formatLatency } from '../../../cli/format.ts';
import { type SignalHost, SignalSource } from '../../../cli/signal-source.ts';
import { JsonView, PrettyView } from '../../../cli/start-view.ts';
import { clean, createTerminal, table } from '../../../cli/terminal.ts';
import type { NodeEvent } from '../../../node/index.ts';
import fc from '../../support/fc.ts';

const READY: NodeEvent = {
  event: 'ready',
  api: 'http://127.0.0.1:8642',
  fingerprint: '12D3KooWxyz',
  multiaddrs: [],
  pid: 1,
  name: 'attic',
  version: '0.1.0',
  models: ['small'],
};

function captured(isTTY: boolean, env: Record<string, string> = {}) {
  const written: string[] = [];
  const out = { isTTY, columns: 80, write: (text: string) => written.push(text) };
  return { terminal: createTerminal(out, out, env), text: () => written.join('') };
}

test('colours only where a person reads, and never with NO_COLOR', () => {
  assert.equal(captured(true).terminal.paint('red', 'x'), '\u001b[31mx\u001b[0m');
  assert.equal(captured(false).terminal.paint('red', 'x'), 'x');
  assert.equal(captured(true, { NO_COLOR: '1' }).terminal.paint('red', 'x'), 'x');
});

test('control and direction characters of others never reach the terminal', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.equal(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/u.test(clean(text)), false);
    }),
  );
  assert.equal(clean('Zoë 👩‍🚀'), 'Zoë 👩‍🚀');
  assert.deepEqual(table(['A', 'B'], [['x\u001b[1m', 'y']]), ['A     B', 'x[1m  y']);
});

test('the JSON view writes ready first, then what came before it', () => {
  const { terminal, text } = captured(false);
  const view = new JsonView(terminal);
  view.show({ event: 'warning', message: 'early' });
  assert.equal(text(), '');
  view.show(READY);
  view.show({ event: 'draining' });
  const events = text()
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as NodeEvent).event);
  assert.deepEqual(events, ['ready', 'warning', 'draining']);
});

test('the banner names endpoint, fingerprint, models, what to try, and that the mesh is open', () => {
  const { terminal, text } = captured(false);
  new PrettyView(terminal).show(READY);
  for (const part of ['http://127.0.0.1:8642/v1', '12D3KooWxyz', 'small', 'meshnode chat', 'Open mesh'])
    assert.ok(text().includes(part), part);
  for (const line of text().split('\n')) assert.ok(line.length <= 90, line);
});

test('loading progress is rewritten in place on a terminal and said once elsewhere', () => {
  const here = captured(true, { NO_COLOR: '1' });
  const view = new PrettyView(here.terminal);
  view.show({ event: 'model_loading', model: 'm', fraction: 0.1 });
  view.show({ event: 'model_loading', model: 'm', fraction: 0.5 });
  view.show({ event: 'model_resident', model: 'm', loadMs: 1500 });
  assert.equal(here.text(), '\r\u001b[Kloading m 10 %\r\u001b[Kloading m 50 %\r\u001b[K* m is loaded (1.5 s)\n');
  const piped = captured(false);
  const plain = new PrettyView(piped.terminal);
  plain.show({ event: 'model_loading', model: 'm', fraction: 0.1 });
  plain.show({ event: 'model_loading', model: 'm', fraction: 0.5 });
  assert.equal(piped.text(), 'loading m\n');
});

class FakeHost implements SignalHost {
  readonly pid = 7;
  readonly killed: string[] = [];
  readonly #handlers = new Map<string, Set<(value?: unknown) => void>>();
  on(event: string, listener: (value?: unknown) => void): void {
    this.#handlers.set(event, (this.#handlers.get(event) ?? new Set()).add(listener));
  }
  off(event: string, listener: (value?: unknown) => void): void {
    this.#handlers.get(event)?.delete(listener);
  }
  kill(_: number, signal: string): void {
    this.killed.push(signal);
  }
  emit(event: string, value?: unknown): void {
    for (const listener of this.#handlers.get(event) ?? []) listener(value);
  }
}

test('each request to stop counts once, in whatever order signals and notes about them arrive', () => {
  const order = fc.array(fc.boolean(), { maxLength: 20 });
  fc.assert(
    fc.property(order, (events) => {
      const host = new FakeHost();
      const counts: number[] = [];
      new SignalSource(host).listen((_, count) => counts.push(count));
      for (const direct of events) {
        if (direct) host.emit('SIGINT');
        else host.emit('message', { forwardedSignal: 'SIGINT' });
      }
      const direct = events.filter((event) => event).length;
      const expected = Math.max(direct, events.length - direct);
      assert.deepEqual(
        counts,
        Array.from({ length: expected }, (_, index) => index + 1),
      );
    }),
  );
});

test('a lost parent is a request to stop, and ends a process in which nobody listens', () => {
  const host = new FakeHost();
  const source = new SignalSource(host);
  host.emit('disconnect');
  assert.deepEqual(host.killed, ['SIGTERM']);
  const seen: string[] = [];
  const unlisten = source.listen((signal) => seen.push(signal));
  host.emit('message', { forwardedSignal: 'SIGHUP' });
  host.emit('message', { forwardedSignal: 'SIGKILL' });
  host.emit('message', 'noise');
  assert.deepEqual(seen, ['SIGHUP']);
  unlisten();
  host.emit('SIGINT');
  assert.deepEqual(seen, ['SIGHUP']);
});

test('server-sent events survive any split of their bytes', async () => {
  const newline = fc.constantFrom('\n', '\r\n', '\r');
  const data = fc.array(
    fc.string({ unit: 'grapheme' }).map((text) => text.replace(/[\r\n]/g, ' ')),
    { maxLength: 8 },
  );
  await fc.assert(
    fc.asyncProperty(data, newline, fc.array(fc.nat(40), { maxLength: 30 }), async (texts, end, sizes) => {
      const bytes = Buffer.from(
        texts.map((text) => `: note${end}event: x${end}data: ${text}${end}data: b${end}${end}`).join(''),
      );
      async function* pieces(): AsyncGenerator<Uint8Array> {
        let at = 0;
        for (const size of sizes) {
          yield bytes.subarray(at, at + size);
          at = Math.min(bytes.length, at + size);
        }
        yield bytes.subarray(at);
      }
      const got: string[] = [];
      for await (const each of eventData(pieces())) got.push(each);
      // A stream that ends in a bare CR could still continue with LF: the last event is then not complete.
      const whole = texts.map((text) => `${text}\nb`);
      assert.deepEqual(got, end === '\r' ? whole.slice(0, got.length) : whole);
      assert.ok(got.length >= texts.length - 1);
    }),
    { numRuns: 300 },
  );
});

test('numbers read as people write them', () => {
  assert.deepEqual([0, 999, 1500, 4_200_000_000, 42e9].map(formatBytes), ['0 B', '999 B', '1.5 kB', '4.2 GB', '42 GB']);
  assert.deepEqual([4000, 200_000, 3_720_000, 9e7].map(formatDuration), ['4 s', '3 min', '1 h 2 min', '1 d 1 h']);
  assert.deepEqual([null, 0.42, 12.6].map(formatLatency), ['-', '0.4 ms', '13 ms']);
});
