/** What a running node tells whoever started it: one line each under `--log-format json`, a friendly line in a terminal. */

export type NodeEvent =
  | {
      readonly event: 'ready';
      /** Base URL of the facade. */
      readonly api: string;
      readonly fingerprint: string;
      /** Where peers can dial us, each ending in `/p2p/<fingerprint>`. */
      readonly multiaddrs: readonly string[];
      readonly pid: number;
      readonly name: string;
      readonly version: string;
      readonly models: readonly string[];
    }
  | {
      readonly event: 'peer_up';
      readonly fingerprint: string;
      readonly name: string;
      readonly models: readonly string[];
    }
  | {
      readonly event: 'peer_down';
      readonly fingerprint: string;
      readonly name: string;
      readonly reason: 'goodbye' | 'lost';
    }
  /** A peer's list of models changed. */
  | {
      readonly event: 'peer_models';
      readonly fingerprint: string;
      readonly name: string;
      readonly models: readonly string[];
    }
  /** `fraction`: 0 to 1. */
  | { readonly event: 'model_loading'; readonly model: string; readonly fraction: number }
  | { readonly event: 'model_resident'; readonly model: string; readonly loadMs: number }
  /** idle: nobody used it; evicted: another model needed the memory; asked: somebody said so. */
  | { readonly event: 'model_unloaded'; readonly model: string; readonly reason: 'idle' | 'evicted' | 'asked' }
  | { readonly event: 'model_failed'; readonly model: string; readonly message: string }
  | { readonly event: 'warning'; readonly message: string }
  | { readonly event: 'draining' }
  | { readonly event: 'stopped' };
