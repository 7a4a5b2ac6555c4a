import { setupManifest } from '@start9labs/start-sdk'

const here = 'https://github.com/selfstead/selfstead/tree/main/examples/services/vault'

export const manifest = setupManifest({
  id: 'vault',
  title: 'Vault',
  license: 'MIT',
  packageRepo: here,
  upstreamRepo: 'https://git.busybox.net/busybox',
  marketingUrl: here,
  donationUrl: null,
  description: {
    short: 'Keeps short texts for you and for other services',
    long: 'A small store over HTTP. It shows how a service offers a volume, an interface, health checks and actions to the services that depend on it.',
  },
  volumes: ['main'],
  images: {
    web: { source: { dockerBuild: {} }, arch: ['x86_64', 'aarch64'], emulateMissingAs: null },
  },
  dependencies: {},
})
