/** `meshnode explain ID`: where a request went, and why. */
import type { RequestRecord } from '../../node/index.ts';
import { type Command, EXIT } from '../command.ts';
import { required } from '../flag-values.ts';
import { formatLatency, shortFingerprint } from '../format.ts';
import { connect } from '../node-api.ts';
import { clean, table } from '../terminal.ts';

const SKIPPED: Readonly<Record<string, string>> = {
  circuit_open: 'its circuit is open',
  cooling_off: 'it asked for a pause',
  boundary: 'outside the boundary',
  already_failed: 'it had failed',
  no_twin: 'not the same model file, engine build and room',
  unauthorized: 'it wants another key',
};

export const explain: Command = {
  name: 'explain',
  positionals: 'ID',
  maxPositionals: 1,
  summary: 'where a request went and why (ID: its x-request-id)',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const id = required(invocation, 0, 'meshnode explain ID, the x-request-id of an answer');
    const api = await connect(invocation);
    const record = await api.read<RequestRecord>(`/api/v1/requests/${encodeURIComponent(id)}`);
    if (invocation.json) {
      terminal.json(record);
      return EXIT.ok;
    }
    const [node, peers] = await Promise.all([api.node(), api.peers()]);
    const names = new Map([[node.fingerprint, `${node.name} (here)`], ...peers.map(nameOf)]);
    const named = (backend: string): string => names.get(backend) ?? shortFingerprint(backend);
    for (const line of explanation(record, named)) terminal.line(line);
    return EXIT.ok;
  },
};

const nameOf = (peer: { readonly fingerprint: string; readonly name: string }): [string, string] => [
  peer.fingerprint,
  peer.name,
];

/** The record as lines; `named` is what people call a backend. */
export function explanation(record: RequestRecord, named: (backend: string) => string): readonly string[] {
  const { label, kind, model, stream, boundary, strategy, outcome, durationMs } = record;
  const took = durationMs === null ? 'it still runs' : `${outcomeText(outcome)} after ${formatLatency(durationMs)}`;
  return [
    clean(`${label}: ${kind} with ${model}, ${stream ? 'streamed' : 'whole'}, ${took}`),
    clean(`strategy ${strategy}, boundary ${boundary}, at ${new Date(record.startedAt).toISOString()}`),
    '',
    ...candidateLines(record, named),
    '',
    ...record.attempts.flatMap((attempt, index) => attemptLines(attempt, index, named)),
    ...(record.attempts.length === 0 ? ['Nobody was asked.'] : []),
  ];
}

function candidateLines({ candidates, model }: RequestRecord, named: (backend: string) => string): readonly string[] {
  if (candidates.length === 0) return [clean(`Nobody had ${model}.`)];
  const isRanked = candidates.some(({ rank }) => rank !== undefined);
  const ranks = ({ rank }: RequestRecord['candidates'][number]): string[] => (isRanked ? [String(rank ?? '-')] : []);
  const rows = candidates.map((candidate) => [
    named(candidate.backend),
    candidate.kind,
    candidate.state,
    ...ranks(candidate),
    String(candidate.priority),
    String(candidate.activeRequests),
    candidate.reportedLoad === null ? '-' : String(candidate.reportedLoad),
    formatLatency(candidate.firstTokenMs),
    candidate.skipped === null ? '' : (SKIPPED[candidate.skipped] ?? candidate.skipped),
  ]);
  return table(
    [
      'CANDIDATE',
      'KIND',
      'STATE',
      ...(isRanked ? ['RANK'] : []),
      'PRIORITY',
      'ACTIVE',
      'LOAD',
      '1ST TOKEN',
      'PASSED OVER',
    ],
    rows,
  );
}

function attemptLines(
  attempt: RequestRecord['attempts'][number],
  index: number,
  named: (backend: string) => string,
): readonly string[] {
  const { backend, startedMs, firstTokenMs, endedMs, outcome, reason } = attempt;
  const first = firstTokenMs === null ? '' : `, first token ${formatLatency(firstTokenMs)}`;
  const end = endedMs === null ? 'still running' : `${outcomeText(outcome)} at ${formatLatency(endedMs)}`;
  return [
    clean(`${index + 1}. ${named(backend)}: asked at ${formatLatency(startedMs)}${first}, ${end}`),
    clean(`   ${reason}`),
  ];
}

function outcomeText(outcome: RequestRecord['outcome']): string {
  if (outcome === null) return 'no end yet';
  return outcome === 'ok' ? 'answered' : `failed (${outcome})`;
}
