/** From argv to a command and its exit code. Started by meshnode.js, which has made sure that this Node is new enough. */
import { existsSync, readFileSync } from 'node:fs';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';
import { nearestName } from '../node/index.ts';
import { CliError, type Command, EXIT, lastWord } from './command.ts';
import { backends } from './commands/backends.ts';
import { batch } from './commands/batch.ts';
import { chat } from './commands/chat.ts';
import { cluster } from './commands/cluster.ts';
import { config } from './commands/config.ts';
import { doctor } from './commands/doctor.ts';
import { explain } from './commands/explain.ts';
import { fixtures } from './commands/fixtures.ts';
import { keys } from './commands/keys.ts';
import { models } from './commands/models.ts';
import { nodes } from './commands/nodes.ts';
import { peers } from './commands/peers.ts';
import { pool } from './commands/pool.ts';
import { secrets } from './commands/secrets.ts';
import { drain, pause, resume } from './commands/service.ts';
import { start } from './commands/start.ts';
import { status } from './commands/status.ts';
import { parseFlags } from './flags.ts';
import { commandHelp, overview } from './help.ts';
import { SignalSource } from './signal-source.ts';
import { clean, createTerminal, type Terminal } from './terminal.ts';

/** In the order of the help. */
export const COMMANDS: readonly Command[] = [
  start,
  status,
  models,
  peers,
  chat,
  batch,
  backends,
  nodes,
  cluster,
  fixtures,
  keys,
  secrets,
  pool,
  explain,
  drain,
  pause,
  resume,
  config,
  doctor,
  ...informational(),
];

/** Runs one command line (without node and script). Resolves with the exit code; reports its own errors. */
export async function main(argv: readonly string[]): Promise<number> {
  const terminal = createTerminal(process.stdout, process.stderr, process.env);
  // A reader that left (`| head`) is no failure of ours; a node goes on without an audience.
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});
  try {
    return await dispatch(argv, terminal);
  } catch (error) {
    const known = error instanceof CliError || (error instanceof Error && 'code' in error);
    const text = error instanceof Error ? (known ? error.message : (error.stack ?? error.message)) : String(error);
    terminal.errorLine(`meshnode: ${known ? clean(text.replace(/\s*\n\s*/g, ' ')) : text}`);
    return error instanceof CliError ? error.exitCode : EXIT.failure;
  }
}

async function dispatch(argv: readonly string[], terminal: Terminal): Promise<number> {
  const [name = 'help', ...words] = argv.map((argument, index) => (index === 0 ? alias(argument) : argument));
  const { command, rest } = find(name, words);
  const { flags, positionals } = parseFlags(command, rest);
  const json = flags['json'] !== undefined;
  if (flags['help'] !== undefined) return printHelp(command, json, terminal);
  return await command.run({
    flags,
    positionals,
    json,
    terminal,
    signals: new SignalSource(process as ConstructorParameters<typeof SignalSource>[0]),
    machine: { env: process.env, cwd: process.cwd(), home: homedir(), hostName: hostname() },
  });
}

/** The command, or the subcommand when the next words name one of its group. */
function find(
  name: string,
  words: readonly string[],
  among: readonly Command[] = COMMANDS,
): { command: Command; rest: readonly string[] } {
  const command = among.find((each) => each.name === name) ?? unknown(name, among);
  const [next] = words;
  if (command.subcommands === undefined || next === undefined || next.startsWith('-')) return { command, rest: words };
  return find(`${name} ${next}`, words.slice(1), command.subcommands);
}

function alias(first: string): string {
  if (first === '--help' || first === '-h') return 'help';
  return first === '--version' || first === '-v' ? 'version' : first;
}

function unknown(name: string, among: readonly Command[]): never {
  const words = among.map((command) => lastWord(command.name));
  const nearest = nearestName(lastWord(name), words);
  const expected = among === COMMANDS ? 'see meshnode help' : `expected ${words.join(', ')}`;
  const hint = nearest === null ? expected : `did you mean ${nearest}?`;
  throw new CliError(`unknown command "${name}": ${hint}`, EXIT.usage);
}

/** The two commands that need to know the others, or nothing at all. */
function informational(): readonly Command[] {
  const common = { settings: [], extra: [] };
  return [
    {
      ...common,
      name: 'help',
      positionals: '[COMMAND]',
      maxPositionals: 3,
      summary: 'this page, or the flags of a command',
      run: async ({ positionals: [name, ...words], json, terminal }) =>
        printHelp(name === undefined || name === 'help' ? null : find(name, words).command, json, terminal),
    },
    {
      ...common,
      name: 'version',
      positionals: '',
      maxPositionals: 0,
      summary: 'versions of meshnode and Node.js',
      hidden: true,
      async run({ json, terminal }) {
        const versions = { meshnode: packageVersion(), node: process.versions.node };
        if (json) terminal.json(versions);
        else terminal.line(`meshnode ${versions.meshnode} (Node.js ${versions.node})`);
        return EXIT.ok;
      },
    },
  ];
}

function printHelp(command: Command | null, json: boolean, terminal: Terminal): number {
  const lines = command === null ? overview(COMMANDS) : commandHelp(command);
  if (json) terminal.json({ help: lines });
  else for (const line of lines) terminal.line(line);
  return EXIT.ok;
}

/** From the package that this file belongs to: one folder up in a checkout, two when compiled. */
function packageVersion(): string {
  for (const up of ['..', '../..']) {
    const path = join(import.meta.dirname, up, 'package.json');
    if (!existsSync(path)) continue;
    const { name, version } = JSON.parse(readFileSync(path, 'utf8')) as { name?: string; version?: string };
    if (name === 'meshnode' && version !== undefined) return version;
  }
  return 'unknown';
}
