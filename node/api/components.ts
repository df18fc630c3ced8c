/** What the facade needs: the dispatcher, read-only views of the node's state, and its options. */
import type { CatalogEntry, NodeLoad } from '../../protocols/catalog/catalog.ts';
import type { Boundary } from '../../protocols/inference/events.ts';
import type { ResidencyControl } from '../backends/backend.ts';
import type { ClusterControl } from '../backends/cluster/cluster-control.ts';
import type { Clock } from '../common/clock.ts';
import type { Logger } from '../common/logger.ts';
import type { Metrics } from '../common/metrics.ts';
import type { BatchService } from '../routing/batch-service.ts';
import type { Dispatcher } from '../routing/dispatch.ts';
import type { Federation } from '../routing/federation.ts';
import type { ModelAlias } from '../routing/model-aliases.ts';
import type { RequestRecord } from '../routing/request-record.ts';
import type { ServiceState } from '../routing/service-state.ts';
import type { LoadBalancing } from '../routing/settings.ts';
import type { SecretStoreView } from '../storage/secret-store.ts';
import type { CallbackInbox } from './resource-server/callback-inbox.ts';

/** Who this node is and how it does, `GET /api/v1/node`. */
export interface NodeStatus {
  /** What people see. */
  readonly name: string;
  readonly version: string;
  readonly fingerprint: string;
  /** Start time of the process, Unix milliseconds. */
  readonly epoch: number;
  readonly uptimeMs: number;
  /** Base URL of the facade. */
  readonly api: string;
  /** Where peers can dial us, each ending in `/p2p/<fingerprint>`. */
  readonly multiaddrs: readonly string[];
  readonly draining: boolean;
  /** llama.cpp build. */
  readonly engineBuild: string;
  /** Where the keys that this node shows to others are kept, and how many. */
  readonly secrets?: SecretStoreView;
}

/** One other node as seen from here, `GET /api/v1/peers`. */
export interface PeerStatus {
  readonly fingerprint: string;
  readonly name: string;
  readonly version: string;
  /** unauthorized: it wants another key than it gets; busy: it answers, but takes no work now. */
  readonly status: 'online' | 'suspect' | 'offline' | 'unauthorized' | 'busy';
  /** How it is spoken to. Default `peer`. */
  readonly kind?: 'peer' | 'http' | 'globus' | 'cluster';
  /** Base URL of a service beyond the mesh, without credentials. Peers have none. */
  readonly url?: string;
  /** How far away it counts as. */
  readonly boundary?: Boundary;
  /** Is there a key to show to it? Never the key. */
  readonly hasKey?: boolean;
  /** Multiaddrs; URLs of HTTP nodes. */
  readonly addresses: readonly string[];
  /** Round trip, milliseconds; null before the first measurement. */
  readonly latencyMs: number | null;
  readonly load: NodeLoad | null;
  readonly models: readonly CatalogEntry[];
  /** Higher is preferred. */
  readonly priority: number;
}

/** Requests sent to one other node and the state of its breaker. */
export interface PeerRoutingStats {
  readonly fingerprint: string;
  readonly totalRequests: number;
  readonly successCount: number;
  readonly failureCount: number;
  /** 0 before the first sample. */
  readonly avgLatencyMs: number;
  readonly activeRequests: number;
  readonly circuitOpen: boolean;
  readonly consecutiveFailures: number;
}

/** How requests are spread, as configured. */
export interface LoadBalancingStatus {
  readonly enabled: boolean;
  readonly strategy: string;
  /** Default true. */
  readonly failoverEnabled?: boolean;
  /** Default true. */
  readonly midStream?: boolean;
  /** Consecutive failures that open a circuit. */
  readonly failureThreshold: number;
  readonly resetTimeoutSecs: number;
}

/** A model that another node says it serves. */
export interface RemoteModel {
  readonly fingerprint: string;
  readonly entry: CatalogEntry;
}

/** Every function reads memory only and returns at once: the model list must not wait for a slow peer. */
export interface FacadeComponents {
  readonly dispatcher: Dispatcher;
  /** Models of the engine here. */
  readonly localModels: () => readonly CatalogEntry[];
  readonly remoteModels: () => readonly RemoteModel[];
  /** Names that stand for models, the preferred first. Absent: none. */
  readonly aliases?: () => readonly ModelAlias[];
  readonly node: () => NodeStatus;
  /** Every other node: peers, and services beyond the mesh as `api:<slug>`, `globus:<slug>`, `cluster:<slug>`. */
  readonly peers: () => readonly PeerStatus[];
  /** One for each of `peers`. */
  readonly routingStats: () => readonly PeerRoutingStats[];
  readonly loadBalancing: () => LoadBalancingStatus;
  /**
   * Changes what the patch names, from the next request on, and keeps it. Absent: it cannot be changed over HTTP.
   *
   * @throws MeshError; nothing has changed then.
   */
  readonly setLoadBalancing?: (patch: Partial<LoadBalancing>) => Promise<void> | void;
  /** Which models are in memory. Absent: it cannot be told or changed over HTTP. */
  readonly residency?: ResidencyControl;
  /** Backend.AI clusters. Absent: they cannot be told or changed over HTTP. */
  readonly clusters?: Pick<ClusterControl, 'list' | 'add' | 'remove'>;
  /** Files and batches. Absent: there are no such routes. */
  readonly batches?: BatchService;
  /** How a request went, by its id or label; null when it is not remembered. */
  readonly requestRecord?: (idOrLabel: string) => RequestRecord | null;
  /** Whom this node works for. Absent: always open. */
  readonly service?: Pick<ServiceState, 'mode' | 'set' | 'refusal'>;
  /** Calls `listener` with each event of the node; returns the unsubscribe. Absent: events cannot be followed. */
  readonly events?: (listener: (event: { readonly event: string }) => void) => () => void;
  /** FIRST's fixtures and their rules. Absent: there is no `/resource_server`. */
  readonly federation?: Federation;
  /** Streamed answers that remote functions push back. Absent: they have nowhere to push to. */
  readonly streamCallbacks?: CallbackInbox;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly clock: Clock;
}

export interface FacadeOptions {
  readonly host: string;
  /** 0 = any free port. */
  readonly port: number;
  /** Bearer key that every route but `/` and `/health` asks for; null = none. */
  readonly apiKey: string | null;
  /** Further `Host` names, `name` or `name:port`. */
  readonly allowHosts: readonly string[];
  /** Web origins that may read answers, for example `https://chat.example`. */
  readonly allowOrigins: readonly string[];
  /** A larger body is a 413. Default 16 MiB. */
  readonly bodyLimitBytes?: number;
  /**
   * A request's headers, and the whole request, must have arrived by then. Defaults 20 s and 30 s: while this process is
   * suspended the time goes on, and what arrived meanwhile is read too late.
   */
  readonly headersTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
  /** How often the two above are looked at. Default 1 s. */
  readonly timeoutCheckMs?: number;
  /** An idle connection is closed after it. Default 65 s, past the 60 s that clients and proxies keep theirs. */
  readonly keepAliveMs?: number;
  /** Further connections are dropped. Default 256. */
  readonly maxConnections?: number;
  /** A stream's headers wait this long for content, so that failures keep their HTTP status. Default 15 s. */
  readonly headerWaitMs?: number;
  /** An answer that is not streamed waits this long for its model to load, then 503 with the progress. Default 60 s. */
  readonly loadWaitMs?: number;
  /** Comments between headers and content, and in gaps of the content. Defaults 5 s and 10 s. */
  readonly waitingCommentMs?: number;
  readonly gapCommentMs?: number;
  /** A client that reads nothing for this long loses its answer. Default 30 s. */
  readonly drainMs?: number;
}

/** Options with every default filled in. */
export type ResolvedFacadeOptions = Required<FacadeOptions>;

/** Fills in the defaults. */
export function resolveFacadeOptions(options: FacadeOptions): ResolvedFacadeOptions {
  return {
    bodyLimitBytes: 16 * 1024 * 1024,
    headersTimeoutMs: 20_000,
    requestTimeoutMs: 30_000,
    timeoutCheckMs: 1_000,
    keepAliveMs: 65_000,
    maxConnections: 256,
    headerWaitMs: 15_000,
    loadWaitMs: 60_000,
    waitingCommentMs: 5_000,
    gapCommentMs: 10_000,
    drainMs: 30_000,
    ...options,
  };
}
