/** `meshnode cluster session list | create | exec | logs | destroy`: compute sessions of a Backend.AI cluster. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { type ClusterWork, type ComputeSession, resourceDemand } from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, EXIT, group, type Invocation } from '../command.ts';
import { flagText, required } from '../flag-values.ts';
import { clean, cleanLines } from '../terminal.ts';
import { CLUSTER_SETTINGS, DEMAND_FLAGS, demandOf, flagDuration, imageOf, onCluster } from './cluster-work.ts';

const WAIT_MS = 10 * 60_000;
/** More is no program that somebody wrote. */
const MAX_CODE_BYTES = 1024 * 1024;
const common = { settings: CLUSTER_SETTINGS, extra: [] };

const list: Command = {
  ...common,
  name: 'cluster session list',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'your sessions there',
  extra: [{ flag: 'all', argument: '', help: 'those that have ended as well' }],
  run: (invocation) =>
    onCluster(invocation, 'meshnode cluster session list NAME', async ({ record, sessions }, signal) => {
      const found = await sessions.list({ all: invocation.flags['all'] !== undefined }, signal);
      return answerList(
        invocation,
        { sessions: found },
        {
          none: `None: meshnode cluster session create ${clean(record.name)} SESSION`,
          columns: ['SESSION', 'STATUS', 'IMAGE', 'CREATED'],
          rows: found.map(({ name, status, image, createdAt }) => [name, status, image, createdAt]),
        },
      );
    }),
};

const CREATE = 'meshnode cluster session create NAME SESSION --image I';

const create: Command = {
  ...common,
  name: 'cluster session create',
  positionals: 'NAME SESSION',
  maxPositionals: 2,
  summary: 'a new one, awaited',
  extra: [
    ...DEMAND_FLAGS,
    { flag: 'mount', argument: 'FOLDER', help: 'a vFolder to mount; repeatable' },
    { flag: 'batch', argument: 'COMMAND', help: 'run this and end, instead of taking code' },
    { flag: 'wait', argument: 'TIME', help: 'at most; 0 = do not wait (10m)' },
  ],
  run: (invocation) =>
    onCluster(invocation, CREATE, async (cluster, signal) => {
      const name = required(invocation, 1, CREATE);
      const demand = resourceDemand(imageOf(invocation), demandOf(invocation));
      const command = flagText(invocation, 'batch');
      const template = { ...demand, name, mounts: invocation.flags['mount'] ?? [], command };
      const created = await cluster.sessions.create(template, signal);
      const boundMs = flagDuration(invocation, 'wait') ?? WAIT_MS;
      const target = command === null ? 'RUNNING' : 'TERMINATED';
      const session =
        boundMs === 0
          ? created
          : await awaited(invocation, cluster, { name, target, boundMs: Math.min(boundMs, 2 ** 31 - 1) });
      answer(invocation, { session }, outcome(session, clean(cluster.record.name)));
      return boundMs === 0 || session.status === target ? EXIT.ok : EXIT.failure;
    }),
};

/** Follows the session and tells each new status on stderr. */
async function awaited(
  { terminal }: Invocation,
  { sessions }: ClusterWork,
  { name, target, boundMs }: { name: string; target: 'RUNNING' | 'TERMINATED'; boundMs: number },
): Promise<ComputeSession> {
  const since = performance.now();
  const onStatus = ({ status }: ComputeSession): void => {
    terminal.errorLine(`${clean(name)}: ${clean(status)} (${Math.round((performance.now() - since) / 1000)} s)`);
  };
  return await sessions.waitUntil(name, { target, boundMs, onStatus }, new AbortController().signal);
}

function outcome({ name, status }: ComputeSession, cluster: string): string {
  const session = clean(name);
  if (status === 'RUNNING') return `${session} runs: meshnode cluster session exec ${cluster} ${session} FILE`;
  if (status === 'TERMINATED') return `${session} is done: meshnode cluster session logs ${cluster} ${session}`;
  const why = `meshnode cluster session logs ${cluster} ${session} may tell why`;
  return `${session} is ${clean(status)}${['ERROR', 'CANCELLED'].includes(status) ? `: ${why}` : ''}`;
}

const EXEC = 'meshnode cluster session exec NAME SESSION [FILE]';

const exec: Command = {
  ...common,
  name: 'cluster session exec',
  positionals: 'NAME SESSION [FILE]',
  maxPositionals: 3,
  summary: 'run a file, or stdin',
  run: (invocation) =>
    onCluster(invocation, EXEC, async ({ sessions }, signal) => {
      const { terminal, json } = invocation;
      const name = required(invocation, 1, EXEC);
      const code = await codeOf(invocation);
      const output: { stream: string; text: string }[] = [];
      let exitCode: number | null = null;
      for await (const event of sessions.execute(name, code, signal)) {
        if (event.type === 'end') ({ exitCode } = event);
        else if (json) output.push({ stream: event.stream, text: event.text });
        else if (event.stream === 'stdout') terminal.write(cleanLines(event.text));
        else terminal.errorLine(cleanLines(event.text.replace(/\n$/, '')));
      }
      if (json) terminal.json({ exitCode, output });
      return exitCode === null || exitCode === 0 ? EXIT.ok : EXIT.failure;
    }),
};

async function codeOf({ positionals: [, , file], machine }: Invocation): Promise<string> {
  if (file === undefined && process.stdin.isTTY === true) {
    throw new CliError(`which code? ${EXEC}, or pipe it in`, EXIT.usage);
  }
  const code =
    file === undefined || file === '-'
      ? await text(process.stdin)
      : await readFile(resolve(machine.cwd, file), 'utf8').catch((error: NodeJS.ErrnoException) => {
          throw new CliError(`${file} cannot be read (${error.code ?? error.message})`, EXIT.usage);
        });
  if (code.trim() === '') throw new CliError('there is no code in it', EXIT.usage);
  if (code.length > MAX_CODE_BYTES) throw new CliError('that is over 1 MiB: put it into a vFolder', EXIT.usage);
  return code;
}

const LOGS = 'meshnode cluster session logs NAME SESSION';

const logs: Command = {
  ...common,
  name: 'cluster session logs',
  positionals: 'NAME SESSION',
  maxPositionals: 2,
  summary: 'what a session wrote',
  run: (invocation) =>
    onCluster(invocation, LOGS, async ({ sessions }, signal) => {
      const said = await sessions.logs(required(invocation, 1, LOGS), signal);
      if (invocation.json) invocation.terminal.json({ logs: said });
      else invocation.terminal.write(cleanLines(said));
      return EXIT.ok;
    }),
};

const DESTROY = 'meshnode cluster session destroy NAME SESSION';

const destroy: Command = {
  ...common,
  name: 'cluster session destroy',
  positionals: 'NAME SESSION',
  maxPositionals: 2,
  summary: 'end one',
  extra: [{ flag: 'force', argument: '', help: 'without waiting for it to end well' }],
  run: (invocation) =>
    onCluster(invocation, DESTROY, async ({ sessions }, signal) => {
      const name = required(invocation, 1, DESTROY);
      await sessions.destroy(name, { forced: invocation.flags['force'] !== undefined }, signal);
      return answer(invocation, { destroyed: name }, `${clean(name)} is being destroyed.`);
    }),
};

export const clusterSession: Command = group('cluster session', 'compute sessions there', [
  list,
  create,
  exec,
  logs,
  destroy,
]);
