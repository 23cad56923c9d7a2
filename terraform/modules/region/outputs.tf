output "region" {
  value = var.region
}

output "endpoint" {
  value = var.certificate_arn == "" ? "http://${aws_lb.clients.dns_name}:9324" : "https://${aws_lb.clients.dns_name}"
}

output "network" {
  value = {
    vpc_id         = aws_vpc.this.id
    route_table_id = aws_route_table.this.id
    cidr           = var.cidr
    region         = var.region
  }
}
