/** How often a healthy peer is given up because the network loses frames: 200 ms round trip and growing loss. */
import { FaultMesh } from '../test/support/fault-mesh.ts';
import { SwitchedLan } from '../test/support/lan-switch.ts';
import { Ledger, type Question, scriptedGolden } from '../test/support/ledger.ts';
import { quantile } from './quantile.ts';
import type { BenchRow } from './result.ts';

const ASKING = 0;
const REQUESTS = 1000;
const AT_ONCE = 32;
const TARGETS: Readonly<Record<number, string>> = { 0: '0', 5: '0', 15: '<= 1', 30: '<= 10' };

/** All rows; a few minutes. */
export async function failoverLoss(): Promise<BenchRow[]> {
  const twin = { engine: 'scripted', models: ['scripted'], tokenDelayMs: 20 } as const;
  const mesh = new FaultMesh(await SwitchedLan.open(3), [{ engine: 'scripted', models: [] }, twin, twin]);
  const rows: BenchRow[] = [];
  try {
    await mesh.startAll();
    for (const percent of [0, 5, 15, 30]) {
      await mesh.lan.shapeAll({ delayMs: 100, loss: percent / 100 });
      rows.push(...(await level(mesh, percent)));
      await mesh.lan.mendAll();
      await mesh.whole();
    }
  } finally {
    await mesh.close();
  }
  return rows;
}

async function level(mesh: FaultMesh, percent: number): Promise<BenchRow[]> {
  const ledger = new Ledger();
  const firstTextMs: number[] = [];
  const from = mesh.events(ASKING).length;
  let asked = 0;
  const client = async (): Promise<void> => {
    while (asked < REQUESTS) {
      asked += 1;
      const question: Question = {
        ...{ id: `${percent}-${asked}`, model: 'scripted', prompt: 'count', seed: asked, temperature: 0 },
        ...{ maxTokens: 10, stream: true, client: 'http' },
      };
      const receipt = await mesh.ask(question).receipt;
      ledger.enter(receipt, scriptedGolden(question));
      firstTextMs.push((receipt.textAtMs[0] ?? receipt.endedAtMs) - receipt.sentAtMs);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
  const { completed, resumed, retried, violations } = ledger.totals();
  const down = mesh.events(ASKING, from).filter(({ event }) => event === 'peer_down').length;
  const row = (what: string, value: number, unit: string, target = ''): BenchRow => ({
    ...{ what: `${percent} % loss, 200 ms round trip: ${what}`, value, unit, target },
  });
  return [
    row('false failovers', ((resumed + retried) * 1000) / REQUESTS, 'per 1,000', TARGETS[percent] ?? ''),
    row('peers given up', down, '', '0'),
    row('answers not whole', REQUESTS - completed, '', '0'),
    row('wrong answers', violations, '', '0'),
    row('first text, p50', quantile(firstTextMs, 0.5), 'ms'),
    row('first text, p95', quantile(firstTextMs, 0.95), 'ms'),
  ];
}
