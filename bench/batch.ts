/**
 * A person's time to the first token, idle and while a batch runs on the same engine; and the batch's speed, alone and
 * while people ask. `npm run bench batch`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { demoModelPath } from '../node/backends/llama-cpp/demo/demo-model.ts';
import { silentLogger } from '../node/common/logger.ts';
import { loadConfig } from '../node/config.ts';
import { MeshNode } from '../node/mesh-node.ts';
import { quantile } from './quantile.ts';
import { withRandomModel } from './random-model.ts';
import type { BenchResult, BenchRow } from './result.ts';
import { timedChat } from './timed-chat.ts';

interface Plan {
  readonly model: string;
  readonly path: string;
  /** Of a person's answers. */
  readonly maxTokens: number;
  readonly samples: number;
  /** Of each line. */
  readonly lineTokens: number;
}

const LINES = 20_000;
/** People do not ask at once when an answer is there. */
const THOUGHT_MS = 60;
const ALONE_MS = 4000;

export async function benchBatch(): Promise<BenchResult> {
  return await withRandomModel(async (random) => {
    const demo = { model: 'demo', path: demoModelPath(), maxTokens: 16, samples: 60, lineTokens: 48 };
    const large = { model: 'random', path: random, maxTokens: 4, samples: 20, lineTokens: 16 };
    return { name: 'batch', rows: [...(await measured(demo)), ...(await measured(large))] };
  });
}

async function measured(plan: Plan): Promise<BenchRow[]> {
  const { model } = plan;
  const dataDir = mkdtempSync(path.join(tmpdir(), 'meshnode-bench-'));
  const { node, api } = await startNode(dataDir, plan);
  try {
    await firstTexts(api, plan, 5);
    // Half of it after the batch: what else the machine does changes meanwhile.
    const idle = await firstTexts(api, plan, plan.samples / 2);
    const { id, rate: alone } = await beginBatch(api, plan);
    const before = await doneOf(api, id);
    const startedAt = performance.now();
    const busy = await firstTexts(api, plan, plan.samples);
    const beside = ((await doneOf(api, id)) - before) / ((performance.now() - startedAt) / 1000);
    await fetch(`${api}/v1/batches/${id}/cancel`, { method: 'POST' });
    await firstTexts(api, plan, 2);
    idle.push(...(await firstTexts(api, plan, plan.samples / 2)));
    const row = (share: number, name: string): BenchRow => ({
      what: `${model}: time to first token ${name}, beside a batch (baseline: idle)`,
      value: quantile(busy, share),
      unit: 'ms',
      baseline: quantile(idle, share),
      ratio: quantile(busy, share) / quantile(idle, share),
      ...(name === 'p95' ? { target: '<= 1.5' } : {}),
    });
    return [
      row(0.5, 'p50'),
      row(0.95, 'p95'),
      {
        what: `${model}: batch speed while somebody asks (baseline: alone)`,
        value: beside,
        unit: 'lines/s',
        baseline: alone,
        ratio: beside / alone,
      },
    ];
  } finally {
    await node.stop();
    rmSync(dataDir, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function startNode(dataDir: string, { model, path: file }: Plan): Promise<{ node: MeshNode; api: string }> {
  const flags = {
    'data-dir': [dataDir],
    port: ['0'],
    listen: ['/ip4/127.0.0.1/tcp/0'],
    'no-mdns': ['true'],
    model: [`${model}=${file}`],
    context: ['1024'],
  };
  const { config } = loadConfig({ flags, env: {}, cwd: dataDir, home: dataDir, hostName: 'bench' });
  const node = new MeshNode(config, { logger: silentLogger });
  let api = '';
  node.onEvent((event) => {
    if (event.event === 'ready') api = event.api;
  });
  await node.start();
  return { node, api };
}

/** Milliseconds to the first text, of one person's questions, none of which begins like another. */
async function firstTexts(api: string, { model, maxTokens }: Plan, count: number): Promise<number[]> {
  const agent = new http.Agent({ keepAlive: true });
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const prompt = `${Math.random().toString(36).slice(2)}: how many stars are in the sky tonight, and who counted them?`;
    times.push((await timedChat({ api, model, prompt, maxTokens, agent })).firstTextMs);
    await sleep(THOUGHT_MS);
  }
  agent.destroy();
  return times;
}

/** Begins a batch; `rate`: lines a second while nobody else asks. */
async function beginBatch(api: string, { model, lineTokens }: Plan): Promise<{ id: string; rate: number }> {
  const lines = Array.from({ length: LINES }, (_, index) =>
    JSON.stringify({
      custom_id: `${index}`,
      method: 'POST',
      url: '/v1/chat/completions',
      body: {
        model,
        max_tokens: lineTokens,
        messages: [{ role: 'user', content: `Line ${index}: tell me a story of a fox.` }],
      },
    }),
  );
  const upload = await fetch(`${api}/v1/files?purpose=batch`, {
    method: 'POST',
    headers: { 'content-type': 'application/jsonl' },
    body: lines.join('\n'),
  });
  const { id: input_file_id } = (await upload.json()) as { id: string };
  const begun = await fetch(`${api}/v1/batches`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ input_file_id, endpoint: '/v1/chat/completions', completion_window: '24h' }),
  });
  const { id } = (await begun.json()) as { id: string };
  while ((await doneOf(api, id)) === 0) await sleep(20);
  const before = await doneOf(api, id);
  await sleep(ALONE_MS);
  return { id, rate: ((await doneOf(api, id)) - before) / (ALONE_MS / 1000) };
}

async function doneOf(api: string, id: string): Promise<number> {
  const batch = (await (await fetch(`${api}/v1/batches/${id}`)).json()) as { request_counts: { completed: number } };
  return batch.request_counts.completed;
}
