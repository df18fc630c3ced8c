/** What the facade adds to a request, and how fast it writes streams: server and client in processes of their own. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { STREAM_TOKENS, startBareServer, startFacadeServer } from './facade-server.ts';
import { latencies, requestRate } from './http-load.ts';
import { median } from './quantile.ts';
import type { BenchResult } from './result.ts';

const LATENCY_REQUESTS = 1000;
const THROUGHPUT_REQUESTS = 4000;
const CONNECTIONS = 32;
const STREAMS = 64;
const ROUNDS = 5;

const BODY = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'What is 2 plus 2? '.repeat(20) }] });
const STREAM_BODY = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'count' }], stream: true });

type ServerKind = 'facade' | 'bare';

interface Server {
  readonly port: number;
  /** Processor time of the server process so far, milliseconds. */
  cpuMs(): Promise<number>;
  stop(): void;
}

/** Facade against a bare `node:http` server with the same bytes; streams at a turn's pace over 64 connections. */
export async function benchFacade(): Promise<BenchResult> {
  const facade = await startServer('facade');
  const bare = await startServer('bare');
  try {
    const latency = { facade: [] as number[], bare: [] as number[] };
    const rate = { facade: [] as number[], bare: [] as number[] };
    const stream = { perSecond: [] as number[], perCore: [] as number[] };
    for (let round = 0; round <= ROUNDS; round += 1) {
      const measured = {
        facadeMs: await medianLatencyMs(facade.port),
        bareMs: await medianLatencyMs(bare.port),
        facadeRate: await requestsPerCore(facade),
        bareRate: await requestsPerCore(bare),
        stream: await streamRate(facade),
      };
      if (round === 0) continue; // warm-up
      latency.facade.push(measured.facadeMs);
      latency.bare.push(measured.bareMs);
      rate.facade.push(measured.facadeRate);
      rate.bare.push(measured.bareRate);
      stream.perSecond.push(measured.stream.perSecond);
      stream.perCore.push(measured.stream.perCore);
    }
    const addedMs = median(latency.facade) - median(latency.bare);
    const requests = median(rate.facade);
    const bareRequests = median(rate.bare);
    return {
      name: 'facade',
      rows: [
        {
          what: 'added to a request, p50',
          value: addedMs,
          unit: 'ms',
          baseline: median(latency.bare),
          target: '<= 1 ms',
        },
        {
          what: 'requests per second of processor time',
          value: requests,
          unit: '1/s',
          baseline: bareRequests,
          ratio: requests / bareRequests,
          target: '>= 2000 1/s',
        },
        {
          what: `tokens over ${STREAMS} streams`,
          value: median(stream.perSecond),
          unit: '1/s',
          target: '>= 20000 1/s',
        },
        { what: 'tokens per second of processor time', value: median(stream.perCore), unit: '1/s' },
      ],
    };
  } finally {
    facade.stop();
    bare.stop();
  }
}

async function startServer(kind: ServerKind): Promise<Server> {
  const child = fork(import.meta.filename, ['--serve', kind]);
  const [port] = (await once(child, 'message')) as [number];
  return { port, cpuMs: () => cpuOf(child), stop: () => void child.kill() };
}

async function cpuOf(child: ChildProcess): Promise<number> {
  child.send('cpu');
  const [cpuMs] = (await once(child, 'message')) as [number];
  return cpuMs;
}

const urlOf = (port: number): string => `http://127.0.0.1:${port}`;

async function medianLatencyMs(port: number): Promise<number> {
  return median(await latencies(urlOf(port), LATENCY_REQUESTS, BODY));
}

async function requestsPerCore(server: Server): Promise<number> {
  const cpuBefore = await server.cpuMs();
  await requestRate(urlOf(server.port), THROUGHPUT_REQUESTS, CONNECTIONS, BODY);
  return (THROUGHPUT_REQUESTS * 1000) / ((await server.cpuMs()) - cpuBefore);
}

async function streamRate(server: Server): Promise<{ perSecond: number; perCore: number }> {
  const cpuBefore = await server.cpuMs();
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: STREAMS }, () => readStream(server.port)));
  const elapsedMs = performance.now() - startedAt;
  const cpuMs = (await server.cpuMs()) - cpuBefore;
  const tokens = STREAMS * STREAM_TOKENS * 1000;
  return { perSecond: tokens / elapsedMs, perCore: tokens / cpuMs };
}

/** Reads one stream as bytes: the client must not be what is measured. */
async function readStream(port: number): Promise<void> {
  const socket = connect({ host: '127.0.0.1', port });
  const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json`;
  socket.write(`${head}\r\nContent-Length: ${STREAM_BODY.length}\r\nConnection: close\r\n\r\n${STREAM_BODY}`);
  let tail: Buffer = Buffer.alloc(0);
  socket.on('data', (data: Buffer) => {
    tail = data.length >= 64 ? data.subarray(-64) : Buffer.concat([tail, data]).subarray(-64);
  });
  await once(socket, 'close');
  if (!tail.includes('[DONE]')) throw new Error('A stream was cut.');
}

if (process.argv[2] === '--serve') {
  const port = process.argv[3] === 'bare' ? await startBareServer() : await startFacadeServer();
  process.on('message', () => {
    const { user, system } = process.cpuUsage();
    process.send?.((user + system) / 1000);
  });
  process.on('disconnect', () => process.exit());
  process.send?.(port);
} else if (process.argv[1] === import.meta.filename) {
  console.log(JSON.stringify(await benchFacade(), null, 2));
}
