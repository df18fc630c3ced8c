/** `meshnode config show | get | set | unset | path`: what the node would be told, and by whom. */
import { editConfig, SETTINGS, settingOf, settingValue } from '../../node/index.ts';
import { type Command, configOf, EXIT, group, refusedAsUsage } from '../command.ts';
import { required } from '../flag-values.ts';
import { table } from '../terminal.ts';
import { editConsequence } from './config-consequence.ts';

const show: Command = {
  name: 'config show',
  positionals: '',
  maxPositionals: 0,
  summary: 'the settings in force and where each comes from',
  settings: null,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const loaded = configOf(invocation);
    if (invocation.json) {
      terminal.json({ config: loaded.config, origins: loaded.origins, file: loaded.file });
      return EXIT.ok;
    }
    const rows = SETTINGS.map((setting) => [
      setting.key,
      shown(settingValue(loaded, setting.key)),
      loaded.origins[setting.key],
    ]);
    for (const line of table(['SETTING', 'VALUE', 'FROM'], rows)) terminal.line(line);
    if (loaded.file !== null) terminal.line(`\nfile: ${loaded.file}`);
    return EXIT.ok;
  },
};

const get: Command = {
  name: 'config get',
  positionals: 'KEY',
  maxPositionals: 1,
  summary: 'one setting, for example loadBalancing.strategy',
  settings: [],
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const asked = required(invocation, 0, 'meshnode config get KEY, as in meshnode config show');
    const { key } = await refusedAsUsage(() => settingOf(asked));
    const loaded = configOf(invocation);
    const value = settingValue(loaded, key);
    if (invocation.json) terminal.json({ key, value, from: loaded.origins[key] });
    else terminal.line(shown(value));
    return EXIT.ok;
  },
};

const set: Command = {
  name: 'config set',
  positionals: 'KEY VALUE',
  maxPositionals: 2,
  summary: 'write one into the config file (lists: a,b,c)',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  run: (invocation) => {
    const usage = 'meshnode config set KEY VALUE, for example: config set loadBalancing.strategy fastest';
    return edit(invocation, required(invocation, 0, usage), required(invocation, 1, usage));
  },
};

const unset: Command = {
  name: 'config unset',
  positionals: 'KEY',
  maxPositionals: 1,
  summary: 'take one out of the config file: the default again',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  run: (invocation) => edit(invocation, required(invocation, 0, 'meshnode config unset KEY'), null),
};

const path: Command = {
  name: 'config path',
  positionals: '',
  maxPositionals: 0,
  summary: 'where the config file is looked for',
  settings: [],
  extra: [],
  async run(invocation) {
    const { path: file, file: read } = configOf(invocation);
    if (invocation.json) invocation.terminal.json({ path: file, exists: read !== null });
    else invocation.terminal.line(file);
    return EXIT.ok;
  },
};

async function edit(invocation: Parameters<Command['run']>[0], key: string, text: string | null): Promise<number> {
  const { terminal, machine, flags } = invocation;
  const [done] = await refusedAsUsage(() => editConfig({ ...machine, flags: configFlag(flags) }, { [key]: text }));
  if (done === undefined) return EXIT.failure;
  const consequence = await editConsequence(invocation, done);
  if (invocation.json) terminal.json({ ...done, ...consequence });
  else {
    terminal.line(
      `${done.key} ${done.value === null ? 'is not set any more' : `= ${shown(done.value)}`}: ${done.path}`,
    );
    terminal.line(consequence.note);
  }
  return EXIT.ok;
}

/** Of the flags of an edit only --config is about the file; the others say where the running node is. */
function configFlag(flags: Parameters<Command['run']>[0]['flags']): typeof flags {
  return flags['config'] === undefined ? {} : { config: flags['config'] };
}

function shown(value: unknown): string {
  if (value === null) return '-';
  if (!Array.isArray(value)) return typeof value === 'object' ? JSON.stringify(value) : String(value);
  return value.map((item) => (typeof item === 'string' ? item : modelText(item))).join(', ') || '-';
}

/** A model or an upstream. */
function modelText(
  item: { readonly id: string | null; readonly path: string } | { readonly name: string; readonly url?: string },
): string {
  if ('name' in item) return `${item.name}=${item.url ?? 'manifest'}`;
  return item.id === null ? item.path : `${item.id}=${item.path}`;
}

export const config: Command = group('config', 'the settings, and where each comes from', [
  show,
  get,
  set,
  unset,
  path,
]);
