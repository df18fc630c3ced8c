/** `meshnode pool status | stats`: the mesh as one pool, and how requests were spread over it. */
import { type Command, EXIT, group } from '../command.ts';
import { formatCount, formatLatency, shortFingerprint } from '../format.ts';
import { connect } from '../node-api.ts';
import { clean, table } from '../terminal.ts';

interface PoolStatus {
  readonly enabled: boolean;
  readonly strategy: string;
  readonly totalNodes: number;
  readonly onlineNodes: number;
  readonly models: readonly { readonly id: string; readonly availableOn: readonly string[] }[];
  readonly endpoints: readonly {
    readonly fingerprint: string;
    readonly name: string;
    readonly baseUrl: string;
    readonly status: string;
    readonly latencyMs: number;
    readonly loadedModelCount: number;
    readonly priority: number;
  }[];
}

interface PoolStats {
  readonly nodes: readonly {
    readonly fingerprint: string;
    readonly totalRequests: number;
    readonly successCount: number;
    readonly failureCount: number;
    readonly avgLatencyMs: number;
    readonly activeRequests: number;
    readonly circuitOpen: boolean;
    readonly consecutiveFailures: number;
  }[];
  readonly totalRequests: number;
  readonly totalSuccesses: number;
  readonly totalFailures: number;
  readonly circuitBreaker: { readonly failureThreshold: number; readonly resetTimeoutSecs: number };
}

const common = { positionals: '', maxPositionals: 0, settings: ['data-dir', 'api-key-file'], extra: [] };

const status: Command = {
  ...common,
  name: 'pool status',
  summary: 'the strategy, and every other node with its models',
  async run(invocation) {
    const { terminal } = invocation;
    const api = await connect(invocation);
    const view = await api.read<PoolStatus>('/api/v1/pool/distributed-status');
    if (invocation.json) {
      terminal.json(view);
      return EXIT.ok;
    }
    if (!view.enabled) {
      terminal.line('Load balancing is off: this node answers only what its own models can.');
      terminal.line('`meshnode config set loadBalancing.enabled true` turns it on.');
      return EXIT.ok;
    }
    terminal.line(`strategy ${clean(view.strategy)}, ${view.onlineNodes} of ${view.totalNodes} nodes online`);
    if (view.endpoints.length === 0) return EXIT.ok;
    const idsOf = (fingerprint: string): string =>
      view.models.flatMap(({ id, availableOn }) => (availableOn.includes(fingerprint) ? [id] : [])).join(', ');
    const rows = view.endpoints.map((node) => [
      node.name,
      node.status,
      String(node.priority),
      node.status === 'offline' ? '-' : formatLatency(node.latencyMs),
      idsOf(node.fingerprint) || '-',
      shortFingerprint(node.fingerprint),
    ]);
    for (const line of table(['NODE', 'STATUS', 'PRIORITY', 'LATENCY', 'MODELS', 'FINGERPRINT'], rows))
      terminal.line(line);
    return EXIT.ok;
  },
};

const stats: Command = {
  ...common,
  name: 'pool stats',
  summary: 'requests sent to each node, and its circuit',
  async run(invocation) {
    const { terminal } = invocation;
    const api = await connect(invocation);
    const view = await api.read<PoolStats>('/api/v1/pool/routing-stats');
    if (invocation.json) {
      terminal.json(view);
      return EXIT.ok;
    }
    const names = new Map((await api.peers()).map((peer) => [peer.fingerprint, peer.name]));
    const rows = view.nodes.map((node) => [
      names.get(node.fingerprint) ?? '-',
      formatCount(node.totalRequests),
      formatCount(node.successCount),
      formatCount(node.failureCount),
      String(node.activeRequests),
      node.avgLatencyMs === 0 ? '-' : formatLatency(node.avgLatencyMs),
      node.circuitOpen ? 'open' : node.consecutiveFailures > 0 ? `${node.consecutiveFailures} failed` : 'closed',
      shortFingerprint(node.fingerprint),
    ]);
    const head = ['NODE', 'REQUESTS', 'OK', 'FAILED', 'ACTIVE', 'LATENCY', 'CIRCUIT', 'FINGERPRINT'];
    for (const line of rows.length === 0 ? ['No other nodes yet.'] : table(head, rows)) terminal.line(line);
    const { totalRequests, totalSuccesses, totalFailures, circuitBreaker } = view;
    terminal.line(`${totalRequests} requests, ${totalSuccesses} ok, ${totalFailures} failed`);
    const { failureThreshold, resetTimeoutSecs } = circuitBreaker;
    terminal.line(`a circuit opens after ${failureThreshold} failures in a row, for ${resetTimeoutSecs} s`);
    return EXIT.ok;
  },
};

export const pool: Command = group('pool', 'the mesh as one pool, and how requests were spread', [status, stats]);
