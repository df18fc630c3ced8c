/** From argv to a command and its exit code. Started by meshnode.js, which has made sure that this Node is new enough. */
import { existsSync, readFileSync } from 'node:fs';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';
import { nearestName } from '../node/index.ts';
import { CliError, type Command, EXIT } from './command.ts';
import { chat } from './commands/chat.ts';
import { config } from './commands/config.ts';
import { doctor } from './commands/doctor.ts';
import { models } from './commands/models.ts';
import { peers } from './commands/peers.ts';
import { start } from './commands/start.ts';
import { status } from './commands/status.ts';
import { parseFlags } from './flags.ts';
import { commandHelp, overview } from './help.ts';
import { SignalSource } from './signal-source.ts';
import { clean, createTerminal, type Terminal } from './terminal.ts';

/** In the order of the help. */
export const COMMANDS: readonly Command[] = [start, status, models, peers, chat, config, doctor, ...informational()];

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
  const [name = 'help', ...rest] = argv.map((argument, index) => (index === 0 ? alias(argument) : argument));
  const command = COMMANDS.find((each) => each.name === name) ?? unknown(name);
  const { flags, positionals } = parseFlags(command, rest);
  const json = flags['json'] !== undefined;
  if (flags['help'] !== undefined) return printHelp(command.name, json, terminal);
  return await command.run({
    flags,
    positionals,
    json,
    terminal,
    signals: new SignalSource(process as ConstructorParameters<typeof SignalSource>[0]),
    machine: { env: process.env, cwd: process.cwd(), home: homedir(), hostName: hostname() },
  });
}

function alias(first: string): string {
  if (first === '--help' || first === '-h') return 'help';
  return first === '--version' || first === '-v' ? 'version' : first;
}

function unknown(name: string): never {
  const nearest = nearestName(
    name,
    COMMANDS.map((command) => command.name),
  );
  const hint = nearest === null ? 'see meshnode help' : `did you mean ${nearest}?`;
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
      maxPositionals: 1,
      summary: 'this page, or the flags of a command',
      run: async ({ positionals, json, terminal }) => printHelp(positionals[0] ?? null, json, terminal),
    },
    {
      ...common,
      name: 'version',
      positionals: '',
      maxPositionals: 0,
      summary: 'versions of meshnode and Node.js',
      async run({ json, terminal }) {
        const versions = { meshnode: packageVersion(), node: process.versions.node };
        if (json) terminal.json(versions);
        else terminal.line(`meshnode ${versions.meshnode} (Node.js ${versions.node})`);
        return EXIT.ok;
      },
    },
  ];
}

function printHelp(name: string | null, json: boolean, terminal: Terminal): number {
  const lines =
    name === null || name === 'help'
      ? overview(COMMANDS)
      : commandHelp(COMMANDS.find((each) => each.name === name) ?? unknown(name));
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
