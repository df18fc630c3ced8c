/** From argv to flag values, against the table of settings. */
import { parseArgs } from 'node:util';
import type { FlagValues } from '../node/config.ts';
import { nearestName, SETTINGS } from '../node/index.ts';
import { CliError, type Command, EXIT } from './command.ts';

/** A flag as a command takes it. */
export interface FlagSpec {
  readonly flag: string;
  readonly argument: string;
  readonly help: string;
  readonly hidden: boolean;
}

const COMMON: readonly FlagSpec[] = [
  { flag: 'config', argument: 'FILE', help: 'settings (~/.config/meshnode/config.json)', hidden: false },
  { flag: 'json', argument: '', help: 'machine-readable output', hidden: false },
  { flag: 'help', argument: '', help: 'this page', hidden: true },
];

/** Everything that the command takes, in the order of its help. */
export function flagsOf(command: Command): readonly FlagSpec[] {
  const settings = SETTINGS.filter((row) => command.settings === null || command.settings.includes(row.flag));
  return [...settings, ...command.extra.map((extra) => ({ ...extra, hidden: false })), ...COMMON];
}

/**
 * Flags and positionals of one command line, without the command's name.
 *
 * @throws CliError (usage) that names the flag, and the nearest known one where it is unknown.
 */
export function parseFlags(
  command: Command,
  argv: readonly string[],
): { readonly flags: FlagValues; readonly positionals: readonly string[] } {
  const specs = flagsOf(command);
  const { tokens } = parseArgs({
    args: [...argv],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries([
      ...specs.map(
        (spec) => [spec.flag, { type: spec.argument === '' ? 'boolean' : 'string', multiple: true }] as const,
      ),
      ['help', { type: 'boolean', short: 'h', multiple: true }] as const,
    ]),
  });
  const flags: Record<string, string[]> = {};
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const spec = specs.find((known) => known.flag === token.name) ?? unknown(command, token.rawName, specs);
    const value = valueOfToken(spec, token.value, token.inlineValue);
    flags[spec.flag] = [...(flags[spec.flag] ?? []), value];
  }
  if (positionals.length > command.maxPositionals) {
    const extra = positionals[command.maxPositionals] ?? '';
    throw new CliError(
      `unexpected argument "${extra}" for ${command.name}: see meshnode help ${command.name}`,
      EXIT.usage,
    );
  }
  return { flags, positionals };
}

function valueOfToken(spec: FlagSpec, value: string | undefined, inline: boolean | undefined): string {
  if (spec.argument === '') {
    if (value === undefined) return 'true';
    throw new CliError(`--${spec.flag} takes no value`, EXIT.usage);
  }
  // "--name --json" is a forgotten value far more often than a node called --json; "--name=--json" says so.
  if (value !== undefined && value !== '' && (inline === true || !value.startsWith('--'))) return value;
  throw new CliError(`--${spec.flag} needs a value: --${spec.flag} ${spec.argument}`, EXIT.usage);
}

function unknown(command: Command, rawName: string, specs: readonly FlagSpec[]): never {
  const name = rawName.replace(/^-+/, '');
  const nearest = nearestName(
    name,
    specs.filter((spec) => !spec.hidden).map((spec) => spec.flag),
  );
  const hint = nearest === null ? `see meshnode help ${command.name}` : `did you mean --${nearest}?`;
  throw new CliError(`unknown flag ${rawName} for ${command.name}: ${hint}`, EXIT.usage);
}
