/** Services beyond the mesh that this node fronts: HTTP servers, Globus Compute sites, clusters. One interface for all. */
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { Boundary, InferenceRequest } from '../../protocols/inference/events.ts';
import { type Startable, startAll, stopAll } from '../common/lifecycle.ts';
import type { Backend } from './backend.ts';

/** One model at one service. */
export interface GatewayHolder {
  readonly backend: Backend;
  readonly entry: CatalogEntry;
  /** It failed a moment ago, is cold, or takes no work now: chosen after those that do. */
  readonly suspect: boolean;
  /** Could it go on with a text that another service began as an answer to this? Absent: no. */
  readonly continuesText?: (request: InferenceRequest) => boolean;
  /** What its owner said of it. Absent: as the node registry says. */
  readonly place?: { readonly priority: number; readonly boundary: Boundary };
  /** Other nodes may use it through this one. Absent: no. */
  readonly shared?: boolean;
  /** Among holders of one class those of the lowest rank come first, whatever the strategy. Absent: 0. */
  readonly rank?: number;
}

/** One service as it is shown. */
export interface GatewayView {
  /** `api:<slug>`, `globus:<slug>` or `cluster:<slug>`. */
  readonly fingerprint: string;
  readonly kind: 'http' | 'globus' | 'cluster';
  readonly name: string;
  /** Without credentials. */
  readonly url: string;
  readonly status: 'online' | 'suspect' | 'offline' | 'unauthorized' | 'busy';
  /** Of the last question for its models, milliseconds; null before it. */
  readonly latencyMs: number | null;
  readonly models: readonly CatalogEntry[];
  /** One sentence: what the last question ran into; null when all is well. Never holds a key. */
  readonly problem: string | null;
  /** Is there a key to show to it? Absent: as the node registry says. */
  readonly hasKey?: boolean;
  readonly place?: { readonly priority: number; readonly boundary: Boundary };
}

/** One model of one service, as it is shown. */
export interface GatewayModel {
  readonly fingerprint: string;
  readonly entry: CatalogEntry;
  /** As of its holder. Absent: no. */
  readonly shared?: boolean;
  /** How far away the service is. Absent: as the node registry says. */
  readonly boundary?: Boundary;
}

/** Reads memory only; asks its services in the background from `start` on. */
export interface Gateway extends Startable {
  /** Who has a model, in a stable order; a service that is offline has none. */
  holders(modelId: string): readonly GatewayHolder[];
  /** Every model of every service that can be used now. */
  models(): readonly GatewayModel[];
  list(): readonly GatewayView[];
  /** A service said that it does not serve a model after all. Unknown ids are ignored. */
  drop(fingerprint: string, modelId: string): void;
  /** Called after each change of `models()` or of a status; returns the unsubscribe. */
  onChange(listener: () => void): () => void;
}

const STOP_BOUND_MS = 5000;

/** Several gateways as one, in the order given. */
export class Gateways implements Gateway {
  readonly #members: readonly Gateway[];

  constructor(members: readonly Gateway[]) {
    this.#members = members;
  }

  async start(): Promise<void> {
    await startAll(this.#members, () => AbortSignal.timeout(STOP_BOUND_MS));
  }

  async stop(signal: AbortSignal): Promise<void> {
    const [failure] = await stopAll(this.#members, signal);
    if (failure !== undefined) throw failure;
  }

  holders(modelId: string): readonly GatewayHolder[] {
    return this.#members.flatMap((member) => member.holders(modelId));
  }

  models(): readonly GatewayModel[] {
    return this.#members.flatMap((member) => member.models());
  }

  list(): readonly GatewayView[] {
    return this.#members.flatMap((member) => member.list());
  }

  drop(fingerprint: string, modelId: string): void {
    for (const member of this.#members) member.drop(fingerprint, modelId);
  }

  onChange(listener: () => void): () => void {
    const offs = this.#members.map((member) => member.onChange(listener));
    return () => {
      for (const off of offs) off();
    };
  }
}
