#!/bin/sh
set -e

mkdir -p /etc/nginx/conf.d
for template in /etc/nginx/templates/*.template; do
    name=$(basename "$template" .template)
    envsubst '$NGINX_PORT' < "$template" > "/etc/nginx/conf.d/$name"
done
