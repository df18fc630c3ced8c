/** `meshnode config show | path`: what the node would be told, and by whom. */
import { SETTINGS, type SettingKey } from '../../node/index.ts';
import { CliError, type Command, configOf, EXIT } from '../command.ts';
import { table } from '../terminal.ts';

export const config: Command = {
  name: 'config',
  positionals: 'show|path',
  maxPositionals: 1,
  summary: 'the effective settings and where each comes from',
  settings: null,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const [what = 'show'] = invocation.positionals;
    if (what !== 'show' && what !== 'path') {
      throw new CliError(`unknown argument "${what}": expected config show or config path`, EXIT.usage);
    }
    const loaded = configOf(invocation);
    if (what === 'path') {
      if (invocation.json) terminal.json({ path: loaded.path, exists: loaded.file !== null });
      else terminal.line(loaded.path);
      return EXIT.ok;
    }
    if (invocation.json) {
      terminal.json({ config: loaded.config, origins: loaded.origins, file: loaded.file });
      return EXIT.ok;
    }
    const rows = SETTINGS.filter((setting) => !setting.hidden).map((setting) => [
      setting.key,
      shown(valueAt(loaded.config, setting.key)),
      loaded.origins[setting.key],
    ]);
    for (const line of table(['SETTING', 'VALUE', 'FROM'], rows)) terminal.line(line);
    if (loaded.file !== null) terminal.line(`\nfile: ${loaded.file}`);
    return EXIT.ok;
  },
};

function valueAt(root: object, key: SettingKey): unknown {
  return key.split('.').reduce<unknown>((at, part) => (at as Record<string, unknown>)[part], root);
}

function shown(value: unknown): string {
  if (value === null) return '-';
  if (!Array.isArray(value)) return String(value);
  return value.map((item) => (typeof item === 'string' ? item : modelText(item))).join(', ') || '-';
}

function modelText(item: { readonly id: string | null; readonly path: string }): string {
  return item.id === null ? item.path : `${item.id}=${item.path}`;
}
