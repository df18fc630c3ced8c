/** `meshnode batch run | list | status | cancel | download`: many requests in a file, when nobody else needs the machines. */
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import type { FlagValues } from '../../node/config.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, EXIT, group, type Invocation } from '../command.ts';
import { formatCount } from '../format.ts';
import { connect, type NodeApi } from '../node-api.ts';
import { clean } from '../terminal.ts';
import { download, follow, verdict } from './batch-follow.ts';
import { readInput, sentLines } from './batch-input.ts';
import { type BatchAnswer, doneOf, isOver } from './batch-progress.ts';

/** Names the run in the batch's metadata, so that the same command finds its batch again. */
const RUN_KEY = 'meshnode_run';
/** As a shell has it for a program that Ctrl-C ended. */
const INTERRUPTED = 130;
/** Ended like this, a batch is not gone on with. */
const BEGUN_ANEW: ReadonlySet<string> = new Set(['failed', 'cancelled', 'cancelling', 'expired']);

const common = { maxPositionals: 1, settings: ['data-dir', 'api-key-file'], extra: [] };
const FILES = [
  { flag: 'out', argument: 'FILE', help: 'answers, one JSON object a line' },
  { flag: 'errors', argument: 'FILE', help: 'lines that failed (OUT.errors.jsonl)' },
];

const run: Command = {
  ...common,
  name: 'batch run',
  positionals: 'IN.jsonl',
  summary: 'ask every line of a file; the same command goes on',
  extra: [
    ...FILES,
    { flag: 'model', argument: 'ID', help: 'ask this model, whatever the lines name' },
    { flag: 'boundary', argument: 'B', help: 'local, mesh, private-cluster or public (public)' },
    { flag: 'fresh', argument: '', help: 'begin anew, also where a batch of this file is there' },
  ],
  async run(invocation) {
    const { flags, terminal, json, signals } = invocation;
    const path = needed(invocation, 'IN.jsonl');
    const out = resolve(last(flags, 'out') ?? usage('batch run needs --out FILE'));
    const input = { path, model: last(flags, 'model') };
    const { digest, endpoint, lines } = await readInput(input);
    if (lines === 0) throw new CliError(`${path} is empty: it needs one JSON object a line`);
    const key = createHash('sha256').update(`${digest}\0${out}`).digest('hex');
    const api = await connect(invocation);
    const stop = new AbortController();
    const unlisten = signals.listen(() => stop.abort());
    try {
      const found = flags['fresh'] === undefined ? await batchOf(api, key) : null;
      const boundary = last(flags, 'boundary');
      const metadata = { [RUN_KEY]: key, ...(boundary === null ? {} : { meshnode_boundary: boundary }) };
      const batch = found ?? (await begin(api, { endpoint, metadata, lines: sentLines(input), signal: stop.signal }));
      const word = found === null ? 'begun' : isOver(found) ? 'done before' : 'going on';
      if (!json) terminal.line(`${word}: ${batch.id}, ${formatCount(lines)} lines`);
      const over = await follow(invocation, { id: batch.id, signal: stop.signal });
      if (over !== null) return await fetched(invocation, over, { out, signal: stop.signal });
      if (json) terminal.json({ event: 'detached', id: batch.id });
      else
        terminal.line(
          `The batch goes on in the node. The same command follows it; meshnode batch cancel ${batch.id} ends it.`,
        );
      return INTERRUPTED;
    } catch (error) {
      if (stop.signal.aborted && !(error instanceof CliError)) return INTERRUPTED;
      throw error;
    } finally {
      unlisten();
    }
  },
};

const list: Command = {
  ...common,
  name: 'batch list',
  positionals: '',
  maxPositionals: 0,
  summary: 'the last batches',
  async run(invocation) {
    const { data } = await (await connect(invocation)).read<{ data: readonly BatchAnswer[] }>('/v1/batches?limit=50');
    return answerList(invocation, data, {
      none: 'No batches yet: meshnode batch run IN.jsonl --out OUT.jsonl',
      columns: ['BATCH', 'STATUS', 'DONE', 'FAILED', 'BEGUN'],
      rows: data.map(rowOf),
    });
  },
};

const status: Command = {
  ...common,
  name: 'batch status',
  positionals: 'ID',
  summary: 'how far a batch is',
  async run(invocation) {
    const batch = await (await connect(invocation)).read<BatchAnswer>(`/v1/batches/${idOf(invocation)}`);
    return answer(invocation, batch, `${clean(batch.id)} ${isOver(batch) ? verdict(batch) : describe(batch)}`);
  },
};

const cancel: Command = {
  ...common,
  name: 'batch cancel',
  positionals: 'ID',
  summary: 'end a batch; what was answered can be downloaded',
  async run(invocation) {
    const batch = await (await connect(invocation)).tell<BatchAnswer>(`/v1/batches/${idOf(invocation)}/cancel`, {});
    return answer(invocation, batch, `${clean(batch.id)} ${describe(batch)}`);
  },
};

const fetchFiles: Command = {
  ...common,
  name: 'batch download',
  positionals: 'ID',
  summary: 'the answers of a batch that is over',
  extra: FILES,
  async run(invocation) {
    const out = resolve(last(invocation.flags, 'out') ?? usage('batch download needs --out FILE'));
    const batch = await (await connect(invocation)).read<BatchAnswer>(`/v1/batches/${idOf(invocation)}`);
    if (!isOver(batch)) throw new CliError(`the batch is not over yet: ${describe(batch)}`);
    const stop = new AbortController();
    const unlisten = invocation.signals.listen(() => stop.abort());
    try {
      return await fetched(invocation, batch, { out, signal: stop.signal });
    } catch (error) {
      if (stop.signal.aborted) return INTERRUPTED;
      throw error;
    } finally {
      unlisten();
    }
  },
};

export const batch: Command = group('batch', 'many requests in a file, when machines are idle', [
  run,
  list,
  status,
  cancel,
  fetchFiles,
]);

/** The batch that this run began before; null for none that could be gone on with. */
async function batchOf(api: NodeApi, key: string): Promise<BatchAnswer | null> {
  let after = '';
  for (;;) {
    const page = await api.read<{ data: readonly BatchAnswer[]; last_id: string | null; has_more: boolean }>(
      `/v1/batches?limit=100${after}`,
    );
    const found = page.data.find(({ metadata }) => metadata?.[RUN_KEY] === key);
    if (found !== undefined) return BEGUN_ANEW.has(found.status) ? null : found;
    if (!page.has_more || page.last_id === null) return null;
    after = `&after=${page.last_id}`;
  }
}

interface Begun {
  readonly endpoint: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly lines: AsyncIterable<Uint8Array>;
  readonly signal: AbortSignal;
}

async function begin(api: NodeApi, { endpoint, metadata, lines, signal }: Begun): Promise<BatchAnswer> {
  const path = '/v1/files?purpose=batch&filename=batch-run.jsonl';
  const { id } = await api.send<{ id: string }>(path, 'application/jsonl', lines, signal);
  const asked = { input_file_id: id, endpoint, completion_window: '24h', metadata };
  return await api.tell<BatchAnswer>('/v1/batches', asked);
}

/** Writes the files of a batch that is over, and says how it went. */
async function fetched(
  invocation: Invocation,
  batch: BatchAnswer,
  { out, signal }: { readonly out: string; readonly signal: AbortSignal },
): Promise<number> {
  const { flags, terminal, json } = invocation;
  const api = await connect(invocation);
  const errors = resolve(last(flags, 'errors') ?? `${out}.errors.jsonl`);
  if (batch.output_file_id !== null) await download(api, { fileId: batch.output_file_id, path: out, signal });
  if (batch.error_file_id !== null) await download(api, { fileId: batch.error_file_id, path: errors, signal });
  const files = {
    out: batch.output_file_id === null ? null : out,
    errors: batch.error_file_id === null ? null : errors,
  };
  const { id, status: state, request_counts: counts } = batch;
  if (json) terminal.json({ event: 'over', id, status: state, ...counts, ...files });
  else {
    terminal.line(verdict(batch));
    if (files.out !== null) terminal.line(`answers: ${files.out}`);
    if (files.errors !== null) terminal.line(`errors:  ${files.errors}`);
  }
  return state === 'completed' && counts.failed === 0 ? EXIT.ok : EXIT.failure;
}

function describe(batch: BatchAnswer): string {
  const { total, failed } = batch.request_counts;
  return `${batch.status}: ${formatCount(doneOf(batch))} of ${formatCount(total)} done, ${formatCount(failed)} failed`;
}

function rowOf(batch: BatchAnswer): readonly string[] {
  const { total, failed } = batch.request_counts;
  const begun = new Date(batch.created_at * 1000).toISOString().slice(0, 16).replace('T', ' ');
  return [batch.id, batch.status, `${doneOf(batch)}/${total}`, String(failed), begun];
}

const idOf = (invocation: Invocation): string => encodeURIComponent(needed(invocation, 'ID'));

function needed({ positionals: [first] }: Invocation, what: string): string {
  return first ?? usage(`${what} is missing`);
}

function last(flags: FlagValues, name: string): string | null {
  return flags[name]?.at(-1) ?? null;
}

function usage(message: string): never {
  throw new CliError(`${message}: see meshnode help batch`, EXIT.usage);
}
