/** What the owner may do with the clusters of a node that runs. */
import type { Clock } from '../../common/clock.ts';
import type { ClusterRecord, ClusterRegistry, NewCluster } from '../../storage/cluster-registry.ts';
import type { ClusterView } from './cluster.ts';
import { type ClusterProbe, probeCluster } from './cluster-probe.ts';
import type { Clusters } from './clusters.ts';

export interface ClusterControlComponents {
  readonly registry: ClusterRegistry;
  readonly clusters: Clusters;
  readonly clock: Clock;
}

const PROBE_MS = 20_000;

export class ClusterControl {
  readonly #components: ClusterControlComponents;

  constructor(components: ClusterControlComponents) {
    this.#components = components;
  }

  /** Each as its last poll found it. */
  list(): readonly ClusterView[] {
    return this.#components.clusters.views();
  }

  /** Registers one, or one of this name anew, and tries it. @throws MeshError as `ClusterRegistry.add`. */
  async add(cluster: NewCluster, secretKey: string): Promise<{ cluster: ClusterRecord; probe: ClusterProbe }> {
    const { registry, clusters, clock } = this.#components;
    const record = await registry.add(cluster, secretKey);
    // Where nothing changed, its owner still wants to know how it is now.
    clusters.cluster(record.slug)?.look();
    const probe = await probeCluster({ clock }, record, secretKey, AbortSignal.timeout(PROBE_MS));
    return { cluster: record, probe };
  }

  /** Forgets one with its secret; by name, slug or fingerprint. @throws MeshError `not_found`. */
  remove(wanted: string): Promise<ClusterRecord> {
    return this.#components.registry.remove(wanted);
  }
}
