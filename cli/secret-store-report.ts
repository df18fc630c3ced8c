/** Which store of keys is in use, why, and whether it opens: for `meshnode doctor` and `meshnode secrets`. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../node/config.ts';
import { openSecretStore, type PassphraseSource, type SecretStore, type SecretStoreView } from '../node/index.ts';

export interface SecretStoreReport extends SecretStoreView {
  readonly ok: boolean;
  /** What is so; for a problem, with what to do. */
  readonly detail: string;
}

/** Looks for itself, whether a node runs or not: 2 s for the keychain at most where it need not open. */
export async function reportSecretStore(config: Config, passphrase?: PassphraseSource): Promise<SecretStoreReport> {
  const store = openSecretStore(config, { warn: () => {}, passphrase });
  try {
    await store.load();
    const problem = (await looseMode(config)) ?? contradiction(store.view());
    if (problem !== null) return { ...store.view(), ok: false, detail: problem };
    return { ...store.view(), ok: true, detail: await describe(store, config, passphrase !== undefined) };
  } catch (error) {
    return { ...store.view(), ok: false, detail: error instanceof Error ? error.message : String(error) };
  }
}

/** How many keys, and where, in a few words. */
export function storeInWords({ kind, count }: SecretStoreView): string {
  const keys = count === 1 ? '1 key' : `${count} keys`;
  if (kind === null) return 'none kept yet';
  if (kind === 'plain') return `${keys} in a plain file that only you can read`;
  return kind === 'keychain' ? `${keys}, sealed by the keychain of this system` : `${keys}, encrypted by a passphrase`;
}

async function describe(store: SecretStore, config: Config, canAsk: boolean): Promise<string> {
  const view = store.view();
  const words = storeInWords(view);
  if (view.kind === 'keychain') {
    await store.unlock();
    return `${words} (it opens)`;
  }
  if (view.kind === 'encrypted') {
    const isOpened = config.secrets.passphraseFile !== null || canAsk;
    if (isOpened) await store.unlock();
    return isOpened ? `${words} (it opens)` : `${words}: meshnode start asks for it, or takes --passphrase-file FILE`;
  }
  if (view.choice === 'plain') return `${words}, as secrets.store says`;
  const { kind, problem } = await store.outlook();
  if (view.kind === null) return `${words}: the first goes into ${placeOf(kind, problem)}`;
  const better = problem === null ? 'keychain' : 'encrypted';
  const why = problem === null ? '' : ` because no keychain can be used (${problem})`;
  return `${words}${why}: meshnode secrets use ${better} protects them`;
}

function placeOf(kind: string, problem: string | null): string {
  if (kind === 'encrypted') return 'a file encrypted by a passphrase, as secrets.store says';
  if (kind === 'plain') return `a plain file that only you can read: no keychain can be used (${problem})`;
  return problem === null ? 'the keychain of this system' : `the keychain, which cannot be used (${problem})`;
}

function contradiction({ kind, choice, count }: SecretStoreView): string | null {
  if (kind === null || count === 0 || choice === 'auto' || choice === kind) return null;
  return `keys are in the ${kind} store and secrets.store says ${choice}: run meshnode secrets use ${choice}`;
}

async function looseMode({ dataDir }: Config): Promise<string | null> {
  const path = join(dataDir, 'secrets.json');
  const found = await stat(path).catch(() => null);
  if (found === null || process.platform === 'win32' || (found.mode & 0o077) === 0) return null;
  return `others can read ${path}: run chmod 600 on it, and change the keys in it if somebody may have copied them`;
}
