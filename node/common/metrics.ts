/** Every instrument of the node, declared once with its unit. Labels come from closed sets only. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Latency buckets in seconds, from a cached token to a cold load. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** Reads a gauge's present value when Prometheus asks, so that lower floors need not know this file. */
export type Collect = () => number;

/** The instruments of one node. Each node has its own registry, so that several can live in one process. */
export class Metrics {
  readonly registry = new Registry();

  readonly requests = new Counter({
    name: 'meshnode_requests_total',
    help: 'Inference requests answered, by where they ran and how they ended.',
    labelNames: ['origin', 'served_by', 'outcome'] as const,
    registers: [this.registry],
  });
  readonly attempts = new Counter({
    name: 'meshnode_attempts_total',
    help: 'Attempts of inference requests, by kind of backend and outcome code.',
    labelNames: ['backend', 'outcome'] as const,
    registers: [this.registry],
  });
  readonly continuations = new Counter({
    name: 'meshnode_continuations_total',
    help: 'Answers that broke off, by what came of going on with them elsewhere.',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly timeToFirstToken = new Histogram({
    name: 'meshnode_time_to_first_token_seconds',
    help: 'From the dispatch of a request to its first token.',
    labelNames: ['served_by'] as const,
    buckets: SECONDS,
    registers: [this.registry],
  });
  readonly tokens = new Counter({
    name: 'meshnode_tokens_total',
    help: 'Tokens of finished requests that this node dispatched or served.',
    labelNames: ['direction'] as const,
    registers: [this.registry],
  });
  readonly httpRequests = new Counter({
    name: 'meshnode_http_requests_total',
    help: 'HTTP answers of the facade by status class.',
    labelNames: ['status'] as const,
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix: 'meshnode_' });
  }

  /** Adds a gauge whose value is read at scrape time. */
  gauge(name: `meshnode_${string}`, help: string, collect: Collect): void {
    new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        this.set(collect());
      },
    });
  }
}
