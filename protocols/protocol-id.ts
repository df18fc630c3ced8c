/** Names of our wire protocols: `/meshnode/<name>/<semver>`. A change that an old peer cannot read is a new major version. */

export const INFERENCE_PROTOCOL = '/meshnode/inference/1.0.0';
export const CATALOG_PROTOCOL = '/meshnode/catalog/1.0.0';
/** Our own kad-dht, so that we never join (or are joined by) the public one. */
export const DHT_PROTOCOL = '/meshnode/kad/1.0.0';
