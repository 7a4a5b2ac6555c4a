import { setupManifest } from '@start9labs/start-sdk'

export const manifest = setupManifest({
  id: '[[.ID]]',
  title: [[js .Title]],
  license: 'MIT',
  packageRepo: 'https://example.com/',
  upstreamRepo: 'https://example.com/',
  marketingUrl: 'https://example.com/',
  donationUrl: null,
  description: {
    short: [[js .Title]],
    long: 'What the service does, in a few sentences.',
  },
  volumes: ['main'],
  // images/main.json says what the image is made of, and comes before this source
  images: { main: { source: { dockerBuild: {} }, arch: ['x86_64', 'aarch64'], emulateMissingAs: null } },
  dependencies: {},
})
