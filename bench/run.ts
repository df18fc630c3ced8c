/** `npm run bench [NAME…]`: runs the benches (all, or those named), prints each and keeps it in bench/results/. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { benchBatch } from './batch.ts';
import { benchEngine } from './engine.ts';
import { benchEngineLoop } from './engine-loop.ts';
import { benchEnginePrefix } from './engine-prefix.ts';
import { benchFacade } from './facade.ts';
import { benchFailover } from './failover.ts';
import { benchHttpBackend } from './http-backend.ts';
import { benchIdle } from './idle.ts';
import { benchJoin } from './join.ts';
import { benchMeshHop } from './mesh-hop.ts';
import { benchPresence } from './presence.ts';
import { benchRelay } from './relay.ts';
import { type BenchResult, machineLine, table } from './result.ts';
import { benchRouting } from './routing.ts';

const BENCHES: Readonly<Record<string, () => Promise<BenchResult>>> = {
  engine: benchEngine,
  'engine-loop': benchEngineLoop,
  'engine-prefix': benchEnginePrefix,
  'mesh-hop': benchMeshHop,
  relay: benchRelay,
  routing: benchRouting,
  facade: benchFacade,
  'http-backend': benchHttpBackend,
  join: benchJoin,
  batch: benchBatch,
  presence: benchPresence,
  failover: benchFailover,
  idle: benchIdle,
};

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !Object.hasOwn(BENCHES, name));
if (unknown.length > 0) {
  console.error(`no bench named ${unknown.join(', ')}: there are ${Object.keys(BENCHES).join(', ')}`);
  process.exit(2);
}

const folder = path.join(import.meta.dirname, 'results');
mkdirSync(folder, { recursive: true });
for (const [name, bench] of Object.entries(BENCHES)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const result = await bench();
  const date = new Date().toISOString().slice(0, 10);
  const text = `${table(result)}\n\n${date}, ${machineLine()}\n`;
  console.log(`\n${text}`);
  writeFileSync(path.join(folder, `${date}-${name}.txt`), text);
}
