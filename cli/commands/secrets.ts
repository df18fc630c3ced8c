/** `meshnode secrets status | use`: where the keys that this node shows to others are kept. */
import { editConfig, openSecretStore, SECRET_STORES, type SecretStoreKind } from '../../node/index.ts';
import { CliError, type Command, configOf, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { required } from '../flag-values.ts';
import { passphraseAsker } from '../passphrase-input.ts';
import { reportSecretStore, storeInWords } from '../secret-store-report.ts';
import { clean } from '../terminal.ts';

const settings = ['data-dir', 'passphrase-file', 'secrets-store'];

const status: Command = {
  name: 'secrets status',
  positionals: '',
  maxPositionals: 0,
  summary: 'which store it is, why, and whether it opens',
  settings,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const report = await reportSecretStore(configOf(invocation).config, passphraseAsker(terminal));
    if (invocation.json) terminal.json(report);
    else terminal.line(clean(report.detail));
    return report.ok ? EXIT.ok : EXIT.failure;
  },
};

const use: Command = {
  name: 'secrets use',
  positionals: 'KIND',
  maxPositionals: 1,
  summary: 'move the keys: keychain, encrypted or plain',
  settings,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const kind = kindOf(required(invocation, 0, 'meshnode secrets use keychain, encrypted or plain'));
    const { config, origins } = configOf(invocation);
    const { store: choice } = config.secrets;
    const isOther = choice !== 'auto' && choice !== kind;
    if (isOther && origins['secrets.store'] !== 'file') {
      throw new CliError(`secrets.store is ${choice} for this command (MESHNODE_SECRETS_STORE): unset it first`);
    }
    const warn = (message: string): void => terminal.errorLine(clean(message));
    const store = openSecretStore(config, { warn, passphrase: passphraseAsker(terminal, { fromPipe: true }) });
    const view = await refusedAsUsage(() => store.use(kind));
    if (isOther) writeChoice(invocation, kind);
    if (invocation.json) terminal.json(view);
    else {
      terminal.line(`${storeInWords(view)}.`);
      if (kind === 'encrypted' && config.secrets.passphraseFile === null) {
        terminal.line('meshnode start asks for the passphrase; a service takes it from --passphrase-file FILE.');
      }
    }
    return EXIT.ok;
  },
};

/** The config file names another kind: the next start would refuse this one. */
function writeChoice({ machine, flags }: Invocation, kind: SecretStoreKind): void {
  editConfig(
    { ...machine, flags: flags['config'] === undefined ? {} : { config: flags['config'] } },
    {
      'secrets.store': kind,
    },
  );
}

function kindOf(text: string): SecretStoreKind {
  const kind = SECRET_STORES.find((each) => each === text);
  if (kind !== undefined) return kind;
  throw new CliError(`"${text.slice(0, 20)}" is no kind of store: keychain, encrypted or plain`, EXIT.usage);
}

export const secrets: Command = group('secrets', 'where the keys that this node shows are kept', [status, use]);
